"""What the index gave up reaches whoever asks, on every path, and costs nobody an answer."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.server.wire import Failure, Wire, request, strings
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag_backends.settings import RetrieveSettings, Settings
from tritonrag_client import RagClient
from tritonrag_client.options import AnswerModel

QUESTION = "How do I parse a JSON document?"
GIVEN_UP = "the index is searched on the CPU: GPU 0 has no room for it, \N{SNOWMAN}"
PATHS: tuple[AnswerModel, ...] = ("generator", "rag")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("degraded")
    for model in CHECKOUT_REPOSITORY.iterdir():
        shutil.copytree(model, folder / model.name)
    shutil.copy(Path(__file__).with_name("degraded_retriever.py"), folder / "retriever" / "1" / "model.py")
    return folder


@pytest.fixture(scope="module")
def degraded_server(settings: Settings, repository: Path) -> Iterator[RunningServer]:
    plain = settings.model_copy(
        update={"retrieve": RetrieveSettings(fused=False)}
    )  # as where there are GPUs to give up
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=plain, model_repository=repository))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def degraded_wire(degraded_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(degraded_server)
    yield connection
    connection.close()


@pytest.fixture
def given_up(repository: Path) -> Iterator[Path]:
    """The file that says so, while a test runs."""
    file = repository / "retriever" / "1" / "given_up"
    file.write_text(GIVEN_UP, encoding="utf-8")
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.usefixtures("given_up")
def test_search_tells_of_every_question(degraded_server: RunningServer) -> None:
    with RagClient(degraded_server.grpc_url) as client:
        results = client.search([QUESTION, "What is a path?", QUESTION])
    assert [result.degraded for result in results] == [GIVEN_UP] * 3
    assert all(result.passages for result in results)


@pytest.mark.usefixtures("given_up")
@pytest.mark.parametrize("model", ["retriever", "retrieve"])
def test_it_is_a_tensor_of_its_own_and_comes_where_it_is_asked_for(degraded_wire: Wire, model: str) -> None:
    questions = {"text_input": np.array([[b"parse"], [b"path"]], object)}
    if model == "retriever":
        questions["mode"] = np.array([[b"lexical"], [b"lexical"]], object)
    message = request(model, questions)
    answer = degraded_wire.unary(message)
    assert isinstance(answer, dict)
    assert strings(answer["degraded"]) == [GIVEN_UP.encode()] * 2
    for name in ("passage_ids", "degraded"):
        chosen = service_pb2.ModelInferRequest()
        chosen.CopyFrom(message)
        chosen.outputs.add(name=name)
        assert degraded_wire.unary(chosen).keys() == {name}


@pytest.mark.usefixtures("given_up")
@pytest.mark.parametrize("strict", [None, True])
def test_both_paths_give_the_same_answer_and_say_the_same_strict_or_not(
    degraded_server: RunningServer, strict: bool | None
) -> None:
    answers = []
    for model in PATHS:
        with RagClient(degraded_server.grpc_url, model=model) as client:
            answers.append(client.ask(QUESTION, strict=strict, request_id="same"))
    assert answers[0] == answers[1]
    assert answers[0].degraded == GIVEN_UP
    assert answers[0].cited


@pytest.mark.usefixtures("given_up")
@pytest.mark.parametrize("model", PATHS)
def test_a_stream_says_it_once_with_its_first_delta(degraded_server: RunningServer, model: AnswerModel) -> None:
    with RagClient(degraded_server.grpc_url, model=model) as client:
        deltas = list(client.stream(QUESTION))
    assert len(deltas) > 1
    assert [delta.degraded for delta in deltas] == [GIVEN_UP] + [""] * (len(deltas) - 1)


def test_a_gauge_says_it_while_it_lasts_and_answers_too(
    degraded_server: RunningServer, degraded_wire: Wire, given_up: Path
) -> None:
    def gauge() -> float:
        return degraded_wire.metric("tritonrag_index_degraded", model_instance="retriever_0_0")

    with RagClient(degraded_server.grpc_url) as client:
        assert client.ask(QUESTION).degraded == GIVEN_UP
        assert gauge() == 1
        given_up.unlink()
        assert client.ask(QUESTION).degraded == ""
        assert client.search(QUESTION).degraded == ""
        assert gauge() == 0


def test_who_brings_passages_along_may_say_what_was_given_up(degraded_wire: Wire) -> None:
    found = degraded_wire.unary(request("retrieve", {"text_input": QUESTION}))
    assert isinstance(found, dict)
    brought = {
        "text_input": QUESTION,
        "passage_ids": np.frombuffer(found["passage_ids"], np.int64),
        "scores": np.frombuffer(found["scores"], np.float32),
        "passages": np.array(strings(found["passages"]), object),
    }
    for told in (None, "", "mine was slow"):
        inputs = brought if told is None else {**brought, "retrieval_degraded": told}
        (answer,) = degraded_wire.stream(request("generator", inputs))
        assert isinstance(answer, dict)
        assert strings(answer["degraded"]) == [(told or "").encode()]
    (refused,) = degraded_wire.stream(request("generator", {**brought, "retrieval_degraded": "x" * 100_000}))
    assert isinstance(refused, Failure)
    assert "retrieval_degraded has 100000 bytes" in refused.message
