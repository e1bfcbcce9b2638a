"""A model with prefixes, served: questions and passages each get their own, in one batch too."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.settings import EmbedderSettings, Settings
from tritonrag_client import RagClient
from tritonrag_client.contract import EMBEDDER
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.embedder.source import SourceOptions

TEXTS = ["What is a path?", "A path is where a file lies.", "And this is a passage of some more words than the others."]


@pytest.fixture(scope="module")
def prefixed_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model, as if it wanted prefixes."""
    folder = tmp_path_factory.mktemp("prefixed") / "embedder"
    source = SourceOptions(query_prefix="query: ", passage_prefix="passage: ")
    export_embedder(None, folder, options=ExportOptions(source=source))
    return folder


@pytest.fixture(scope="module")
def prefixed_server(prefixed_dir: Path) -> Iterator[RunningServer]:
    triton = TritonServer()
    settings = Settings(embedder=EmbedderSettings(model=prefixed_dir, precision="fp32", instances=1))
    with triton:
        yield triton.start(ServeOptions(settings=settings, models=(EMBEDDER,)))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def prefixed_wire(prefixed_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(prefixed_server)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def prefixed_encoder(prefixed_dir: Path) -> Encoder:
    return Encoder.open(prefixed_dir, precision="fp32")


def strings_of(*texts: str) -> np.ndarray:
    return np.array([[text.encode()] for text in texts], np.object_)


def test_texts_are_questions_unless_the_client_says_passages(
    prefixed_server: RunningServer, prefixed_encoder: Encoder
) -> None:
    questions = prefixed_encoder.encode(TEXTS).vectors
    passages = prefixed_encoder.encode(TEXTS, input_type="passage").vectors
    assert np.abs(questions - passages).max() > 0.01
    with RagClient(prefixed_server.grpc_url) as client:
        assert np.abs(client.embed(TEXTS) - questions).max() < 1e-5
        assert np.abs(client.embed(TEXTS, input_type="passage") - passages).max() < 1e-5


def test_each_row_of_a_request_has_its_own_type(prefixed_wire: Wire, prefixed_encoder: Encoder) -> None:
    inputs = {"text_input": strings_of(*TEXTS), "input_type": strings_of("passage", "", "query")}
    answer = prefixed_wire.unary(request("embedder", inputs))
    assert not isinstance(answer, Failure)
    vectors = np.frombuffer(answer["embedding"], np.float32).reshape(3, -1)
    expected = prefixed_encoder.encode(TEXTS, input_type=["passage", "query", "query"]).vectors
    assert np.abs(vectors - expected).max() < 1e-5


@pytest.mark.parametrize("given", ["document", "QUERY"])
def test_a_type_that_is_none_is_refused_by_value(prefixed_wire: Wire, given: str) -> None:
    answer = prefixed_wire.unary(request("embedder", {"text_input": "Why?", "input_type": given}))
    assert isinstance(answer, Failure)
    assert answer.status == "INVALID_ARGUMENT"
    assert f'bad_request: input_type is \'{given}\'; send "query" or "passage"' in answer.message
