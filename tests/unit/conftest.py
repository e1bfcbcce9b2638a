import os
from pathlib import Path

import pytest

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import MANIFEST_FILE
from tritonrag_export.embedder.exporter import export_embedder

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def embedder_dir() -> Path:
    """The real model, exported once per checkout: `make test` has done it already."""
    directory = REPOSITORY / ".tritonrag" / "embedder"
    if not (directory / MANIFEST_FILE).is_file():
        export_embedder(None, directory)
    return directory


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command's surroundings: an empty folder, and no variable of ours."""
    for name in list(os.environ):
        if name.startswith("TRITONRAG_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def encoder(embedder_dir: Path) -> Encoder:
    """What serving uses: int8, one thread."""
    return Encoder.open(embedder_dir)
