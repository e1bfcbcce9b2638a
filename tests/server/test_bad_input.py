"""Bad input ends in a typed error that names the value and the way out, leaks nothing, and leaves the server serving."""

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request
from tritonrag_client.errors import parse_error

IN_STREAM = ""  # a failure inside a stream bears no gRPC status
QUESTION = "How do I parse a JSON document?"
LEAKS = re.compile(r"\.py\b|\bline \d+|Traceback|(?:/[\w.-]+){2,}")
TEXT_MODELS = ("embedder", "retrieve", "rag", "generator")
SEARCH_MODELS = ("retrieve", "rag", "generator")
ANSWER_MODELS = ("rag", "generator")

# What is sent, the models it is sent to, our code, and what the message must name.
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], str, str]] = {
    "a missing question": ({"num_passages": 3}, SEARCH_MODELS, "bad_request", "text_input is missing; send a text"),
    "a missing question to be streamed": (
        {"stream": True},
        ANSWER_MODELS,
        "bad_request",
        "text_input is missing; send a text",
    ),
    "empty question": ({"text_input": ""}, TEXT_MODELS, "bad_request", r"text_input is ''"),
    "blank question": ({"text_input": " \n\t "}, TEXT_MODELS, "bad_request", r"text_input is ' \\n\\t '"),
    "a megabyte of text": (
        {"text_input": "x" * 1_000_000},
        TEXT_MODELS,
        "bad_request",
        r"1000000 bytes; send at most 32768",
    ),
    "invalid UTF-8": ({"text_input": b"ab\xff\xfe"}, TEXT_MODELS, "bad_request", r"byte 0xff at offset 2"),
    "a NUL byte": ({"text_input": "what\0is"}, TEXT_MODELS, "bad_request", r"NUL character at offset 4"),
    "no passages": (
        {"text_input": QUESTION, "num_passages": 0},
        SEARCH_MODELS,
        "bad_request",
        r"num_passages is 0; ask for 1 to",
    ),
    "a negative count": (
        {"text_input": QUESTION, "num_passages": -1},
        SEARCH_MODELS,
        "bad_request",
        r"num_passages is -1",
    ),
    "a billion passages": (
        {"text_input": QUESTION, "num_passages": 10**9},
        SEARCH_MODELS,
        "bad_request",
        r"is 1000000000;",
    ),
    "broken filter JSON": ({"text_input": QUESTION, "filter": '{"a":'}, SEARCH_MODELS, "bad_request", r"filter"),
    "a filter that is no object": ({"text_input": QUESTION, "filter": "3"}, SEARCH_MODELS, "bad_request", r"filter"),
    "a filter on a field that is not there": (
        {"text_input": QUESTION, "filter": '{"author":"x"}'},
        SEARCH_MODELS,
        "bad_request",
        r"author",
    ),
    "no tokens": (
        {"text_input": QUESTION, "max_tokens": 0},
        ANSWER_MODELS,
        "bad_request",
        r"max_tokens is 0; ask for 1 to",
    ),
    "negative tokens": ({"text_input": QUESTION, "max_tokens": -5}, ANSWER_MODELS, "bad_request", r"max_tokens is -5"),
    "a negative temperature": (
        {"text_input": QUESTION, "temperature": -0.5},
        ANSWER_MODELS,
        "bad_request",
        r"temperature is -0.5",
    ),
    "a temperature that is no number": (
        {"text_input": QUESTION, "temperature": float("nan")},
        ANSWER_MODELS,
        "bad_request",
        "nan",
    ),
    "top_p over one": ({"text_input": QUESTION, "top_p": 1.5}, ANSWER_MODELS, "bad_request", r"top_p is 1.5"),
    "an adapter that is not there": (
        {"text_input": QUESTION, "lora_name": "x"},
        ANSWER_MODELS,
        "bad_request",
        r"lora_name is 'x'",
    ),
    "stop without an id": ({"text_input": QUESTION, "stop": True}, ANSWER_MODELS, "bad_request", r"request id"),
}


@pytest.mark.parametrize(
    ("model", "case"), [(model, case) for case, (_, models, _, _) in CASES.items() for model in models]
)
def test_bad_values_are_refused_by_name(wire: Wire, model: str, case: str) -> None:
    inputs, _, code, named = CASES[case]
    answer = wire.ask(request(model, inputs))
    assert isinstance(answer, Failure), answer
    assert answer.status in {"INVALID_ARGUMENT", IN_STREAM}
    error = parse_error(answer.message)
    assert error is not None, answer.message
    assert error.code == code
    assert re.search(named, error.message), error.message
    assert not LEAKS.search(answer.message), answer.message
    still_serves(wire)


# Triton itself refuses these before a model of ours sees them; the words are Triton's, and good enough.
NATIVE: dict[str, tuple[str, dict[str, Any], bool | None, str, str]] = {
    "no input at all": ("retrieve", {}, None, "INVALID_ARGUMENT", "request has 0 inputs"),
    "rag with no input at all": ("rag", {}, None, IN_STREAM, "request has 0 inputs"),
    "a number for a text": ("retrieve", {"text_input": 3}, None, "INVALID_ARGUMENT", "INT32"),
    "a text for a number": (
        "retrieve",
        {"text_input": QUESTION, "num_passages": "5"},
        None,
        "INVALID_ARGUMENT",
        "BYTES",
    ),
    "a shape without the batch": ("retrieve", {"text_input": QUESTION}, False, "INVALID_ARGUMENT", "shape"),
    "a shape of three": ("rag", {"text_input": np.array([b"a", b"b", b"c"], object)}, None, IN_STREAM, "shape"),
    "a batch over the limit": (
        "retrieve",
        {"text_input": np.full((65, 1), b"a", object)},
        None,
        "INVALID_ARGUMENT",
        "64",
    ),
    "an input that no model has": ("rag", {"text_input": QUESTION, "colour": 1}, None, IN_STREAM, "colour"),
    "a model that is not there": ("oracle", {"text_input": QUESTION}, None, "NOT_FOUND", "oracle"),
}


@pytest.mark.parametrize("case", NATIVE)
def test_what_triton_refuses_is_named_too(wire: Wire, case: str) -> None:
    model, inputs, batched, status, named = NATIVE[case]
    answer = wire.ask(request(model, inputs, batched=batched))
    assert isinstance(answer, Failure), answer
    assert answer.status == status
    assert named in answer.message
    assert not LEAKS.search(answer.message), answer.message
    still_serves(wire)


def test_unary_calls_of_a_streaming_model_are_refused_by_triton(wire: Wire) -> None:
    answer = wire.unary(request("rag", {"text_input": QUESTION}))
    assert answer == Failure("UNIMPLEMENTED", "ModelInfer RPC doesn't support models with decoupled transaction policy")


PASSAGE = b'{"text":"t","title":"","uri":"u","start":0,"end":1,"metadata":{}}'


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"passages": np.array([PASSAGE], object)}, "passage_ids, scores missing"),
        (
            {"passages": np.array([b"{"], object), "passage_ids": np.array([1]), "scores": np.ones(1, np.float32)},
            r"passages\[0\]",
        ),
        (
            {
                "passages": np.array([PASSAGE], object),
                "passage_ids": np.array([1, 2]),
                "scores": np.ones(1, np.float32),
            },
            "2, 1 and 1",
        ),
        (
            {
                "passages": np.array([PASSAGE], object),
                "passage_ids": np.array([1]),
                "scores": np.full(1, np.inf, np.float32),
            },
            "inf",
        ),
    ],
)
def test_passages_that_do_not_fit_together_are_refused(wire: Wire, inputs: dict[str, Any], named: str) -> None:
    answer = wire.ask(request("generator", {"text_input": QUESTION, **inputs}))
    assert isinstance(answer, Failure)
    assert re.search(f"bad_request: .*{named}", answer.message), answer.message
    still_serves(wire)


@pytest.mark.parametrize(
    ("vector", "named"),
    [
        (np.full((1, 384), np.nan, np.float32), "nan|NaN|finite"),
        (np.full((1, 384), np.inf, np.float32), "inf|finite"),
        (np.ones((1, 3), np.float32), "3"),
        (np.zeros((1, 384), np.float32), "unit"),
    ],
)
def test_vectors_that_the_index_can_not_search_are_refused(
    wire: Wire, vector: np.ndarray[Any, Any], named: str
) -> None:
    answer = wire.ask(request("retriever", {"embedding": vector, "text_input": QUESTION}))
    assert isinstance(answer, Failure)
    assert answer.status == "INVALID_ARGUMENT"
    assert re.search(named, answer.message), answer.message
    still_serves(wire)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/rag/generate", {"text_input": ""}, 400),
        ("/v2/models/rag/generate", {"text_input": QUESTION, "num_passages": 0}, 400),
        ("/v2/models/rag/generate", {}, 400),
        ("/v2/models/rag/generate", b"{", 500),  # Triton's own status for broken JSON
        ("/v2/models/rag/generate", b'{"text_input": "\xff"}', 400),
        ("/v2/models/oracle/generate", {"text_input": QUESTION}, 404),
    ],
)
def test_http_refuses_with_a_status_and_leaks_nothing(wire: Wire, path: str, body: Any, status: int) -> None:
    got, answer = wire.post(path, body)
    assert got == status, answer
    assert json.loads(answer)["error"]
    assert not LEAKS.search(answer.decode(errors="replace"))
    still_serves(wire)


def test_one_bad_request_in_a_batch_fails_alone(wire: Wire) -> None:
    good = request("embedder", {"text_input": "a good text"})
    bad = request("embedder", {"text_input": "\0"})
    calls = [wire.stub.ModelInfer.future(message, timeout=20) for message in [good, bad] * 30]
    outcomes = [call.exception() is None for call in calls]
    assert outcomes == [True, False] * 30


def still_serves(wire: Wire) -> None:
    answer = wire.unary(request("retrieve", {"text_input": QUESTION}))
    assert isinstance(answer, dict), answer
