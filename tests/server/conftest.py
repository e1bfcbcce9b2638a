"""One real Triton for the whole run, over a real index of real documentation; proven gone at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.wire import Wire
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.settings import EmbedderSettings, GeneratorSettings, Settings
from tritonrag_export.documents.chunking import chunk
from tritonrag_export.documents.model import Document
from tritonrag_export.documents.pydoc_corpus import pydoc_documents
from tritonrag_export.documents.units import units_of
from tritonrag_export.indexing import build_index

# Enough of the standard library to hold answers and distractors, small enough to embed in seconds.
MODULES = ("json", "csv", "pathlib", "asyncio", "logging", "argparse", "zipfile", "socket", "heapq", "statistics")
TOPICS = ("assert", "with", "try", "slicings", "exprlists", "global")


@pytest.fixture(scope="session")
def embedder_dir() -> Path:
    folder = Path(__file__).parents[2] / ".tritonrag" / "embedder"
    assert (folder / "embedder.json").is_file(), f"{folder} is not there; `make test` exports it"
    return folder


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    wanted = {f"pydoc:{module}" for module in MODULES} | {f"pydoc:topics/{topic}" for topic in TOPICS}
    return [document for document in pydoc_documents(on_skip=lambda _: None) if document.uri in wanted]


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory, embedder_dir: Path, documents: list[Document]) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    encoder = Encoder.open(embedder_dir, threads=2)
    units = units_of(documents, lambda document: chunk(document, encoder), lambda _: None)
    build_index(units, [encoder], folder)
    return folder


@pytest.fixture(scope="session")
def settings(embedder_dir: Path, index_dir: Path) -> Settings:
    return Settings(index=index_dir, embedder=EmbedderSettings(model=embedder_dir, instances=2))


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[RunningServer]:
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="session")
def wire(server: RunningServer) -> Iterator[Wire]:
    connection = Wire(server)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def llm_settings(settings: Settings, endless_llm_dir: Path) -> Settings:
    """A language model with random weights: it writes nonsense, but through everything that a real one goes through."""
    return settings.model_copy(
        update={
            "generator": GeneratorSettings(engine="onnxruntime_genai", max_tokens=64),
            "genai": GenaiSettings(model=endless_llm_dir, threads=1),
        }
    )


@pytest.fixture(scope="session")
def llm_server(llm_settings: Settings) -> Iterator[RunningServer]:
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=llm_settings))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="session")
def llm_wire(llm_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(llm_server)
    yield connection
    connection.close()
