"""`retrieve` in one process answers as the ensemble of `embedder` and `retriever` does: same passages, same errors."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request, strings
from tests.waiting import settled
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import RetrieveSettings, Settings
from tritonrag_client import RagClient
from tritonrag_perf.server_time import ServerStatistics

QUESTIONS = (
    "How do I parse a JSON document?",
    "What is a path?",
    "sort a list by a key",
    "How do I parse a JSON document?",
)
# An int8 encoder rounds a text's vector a little differently in other company (docs/benchmarks/embedder.md), and an ensemble embeds
# what stands in a request twice twice.
ROUNDING = 2e-3
INPUTS: dict[str, dict[str, Any]] = {
    "as the index was built": {},
    "more passages": {"num_passages": 17},
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid": {"mode": "hybrid", "num_passages": 3},
    "a tenant that has nothing of its own": {"tenant": "nobody"},
    "an option for the other models": {"stream": True, "max_tokens": 7},
}
BAD: dict[str, dict[str, Any]] = {
    "no text": {"num_passages": 3},
    "an empty text": {"text_input": ""},
    "a blank text": {"text_input": " \t"},
    "a megabyte": {"text_input": "x" * 1_000_000},
    "no UTF-8": {"text_input": b"ab\xff"},
    "a NUL character": {"text_input": "a\0b"},
    "another mode": {"text_input": "path", "mode": "sparse"},
    "no passage": {"text_input": "path", "num_passages": 0},
    "too many passages": {"text_input": "path", "num_passages": 101},
    "a filter that is none": {"text_input": "path", "filter": "{"},
    "a filter by an unknown field": {"text_input": "path", "filter": '{"colour": "red"}'},
}


@pytest.fixture(scope="module")
def plain_server(settings: Settings) -> Iterator[RunningServer]:
    triton = TritonServer()
    plain = settings.model_copy(update={"retrieve": RetrieveSettings(fused=False)})
    with triton:
        yield triton.start(ServeOptions(settings=plain, models=("retrieve", "rag")))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def plain_wire(plain_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(plain_server)
    yield connection
    connection.close()


def test_one_is_a_model_and_the_other_an_ensemble(server: RunningServer, plain_server: RunningServer) -> None:
    for one, models in ((server, ("retrieve",)), (plain_server, ("retrieve", "embedder", "retriever"))):
        with ServerStatistics(one.grpc_url, headers=one.admin_headers) as statistics:
            assert statistics.models_of("retrieve") == models


@pytest.mark.parametrize("case", INPUTS)
def test_they_find_the_same(wire: Wire, plain_wire: Wire, case: str) -> None:
    rows = {name: np.array([[_raw(value)]] * len(QUESTIONS), _dtype(value)) for name, value in INPUTS[case].items()}
    rows["text_input"] = np.array([[text.encode()] for text in QUESTIONS], np.object_)
    found, expected = (one.unary(request("retrieve", rows)) for one in (wire, plain_wire))
    assert isinstance(found, dict)
    assert isinstance(expected, dict)
    if case == "lexical":
        assert found == expected
    assert found.keys() == expected.keys()
    assert found["index_version"] == expected["index_version"]
    mine, theirs = (_ranked(one) for one in (found, expected))
    assert mine[1].shape == theirs[1].shape
    assert np.allclose(mine[1], theirs[1], atol=ROUNDING)
    for row, (ids, others) in enumerate(zip(mine[0], theirs[0], strict=True)):
        least = theirs[1][row][-1]
        only = {score for one, score in zip(ids, mine[1][row], strict=True) if one not in others}
        assert all(score <= least + ROUNDING for score in only), (
            "what only one of them found is as good as the other's last"
        )


def _ranked(outputs: dict[str, bytes]) -> tuple[list[list[int]], np.ndarray[Any, Any]]:
    """Ids and scores, a row for each question; each id goes with its own passage."""
    ids = np.frombuffer(outputs["passage_ids"], np.int64).reshape(len(QUESTIONS), -1)
    scores = np.frombuffer(outputs["scores"], np.float32).reshape(ids.shape)
    assert len(strings(outputs["passages"])) == ids.size
    return ids.tolist(), scores


@pytest.mark.parametrize("case", BAD)
def test_they_refuse_the_same_in_the_same_words(wire: Wire, plain_wire: Wire, case: str) -> None:
    found, expected = (one.unary(request("retrieve", BAD[case])) for one in (wire, plain_wire))
    assert isinstance(expected, Failure)
    assert found == replace(
        expected, message=expected.message.removeprefix("in ensemble 'retrieve', ")
    )  # Triton's words


def test_a_bad_question_spoils_its_own_request_alone(wire: Wire) -> None:
    rows = np.array([[QUESTIONS[0].encode()], [b" "]], np.object_)
    assert isinstance(wire.unary(request("retrieve", {"text_input": rows})), Failure)
    assert isinstance(wire.unary(request("retrieve", {"text_input": QUESTIONS[0]})), dict)


def test_they_answer_the_same(server: RunningServer, plain_server: RunningServer) -> None:
    answers = []
    for one in (server, plain_server):
        with RagClient(one.grpc_url, model="rag") as client:
            answers.append(replace(client.ask(QUESTIONS[0]), request_id=""))
    assert answers[0] == answers[1]
    assert answers[0].sources


def test_a_lexical_question_is_not_embedded(wire: Wire) -> None:
    def tokens() -> float:
        return wire.metric("tritonrag_embedder_tokens_total", kind="real")

    before = settled(tokens)
    wire.unary(request("retrieve", {"text_input": "a question that nobody asked before", "mode": "lexical"}))
    assert settled(tokens) == before
    wire.unary(request("retrieve", {"text_input": "a question that nobody asked before", "mode": "dense"}))
    assert settled(tokens) > before


def _raw(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _dtype(value: Any) -> Any:
    return np.object_ if isinstance(value, str) else np.bool_ if isinstance(value, bool) else np.int32
