"""The servers that tests/server asks, and certificates."""

from pathlib import Path

import pytest

from tests.security.certificates import Authority
from tests.server.conftest import documents, embedder_dir, index_dir, server, settings, wire

__all__ = ["documents", "embedder_dir", "index_dir", "server", "settings", "wire"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the server's certificate and those of clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Toy models."""
    from tests.server import toy  # noqa: PLC0415 - builds an index, which few need

    return toy.make_repository(tmp_path / "repository")
