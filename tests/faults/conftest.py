"""A real `tritonrag serve` over a real index, proven gone at the end; and the fixtures of tests/server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.load import References, take_references
from tests.faults.serving import Serve, serving
from tests.faults.slow_server import slow_server
from tests.server.conftest import (  # noqa: F401 - fixtures are found by being names here
    documents,
    embedder_dir,
    index_dir,
    llm_server,
    llm_settings,
    llm_wire,
    server,
    settings,
    wire,
)
from tests.server.wire import Wire
from tritonrag.launcher import RunningServer
from tritonrag_backends.settings import Settings


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, index_dir: Path, embedder_dir: Path) -> Iterator[Serve]:  # noqa: F811
    """One for all tests of a module: what they break is mended."""
    variables = {"TRITONRAG_EMBEDDER_INSTANCES": "2", "TRITONRAG_DRAIN_TIMEOUT_S": "5"}
    with serving(tmp_path_factory.mktemp("serve"), index=index_dir, embedder=embedder_dir, **variables) as serve:
        yield serve
        serve.stop()


@pytest.fixture(scope="module")
def slow(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:  # noqa: F811
    """A server whose engine takes its time."""
    with slow_server(settings, tmp_path_factory.mktemp("slow") / "repository") as running_server:
        yield running_server


@pytest.fixture
def slow_wire(slow: RunningServer) -> Iterator[Wire]:
    connection = Wire(slow)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def references(serve: Serve) -> References:
    return take_references(serve.grpc_url)
