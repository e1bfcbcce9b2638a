"""Profile gpu on a machine without one: `tokenizer` and a stand-in for `encoder` answer as profile cpu's one model does."""

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.server.wire import Failure, Wire, request, strings
from tests.waiting import settled
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import (
    ATTENTION_MASK,
    EMBEDDER,
    EMBEDDING,
    ENCODER,
    GENERATOR,
    INPUT_IDS,
    INPUT_TYPE,
    PASSAGE_IDS,
    PASSAGES,
    RAG,
    RETRIEVE,
    SCORES,
    SOURCES,
    TEXT_INPUT,
    TEXT_OUTPUT,
    TOKENIZER,
)
from tritonrag_client.errors import parse_error

TOLERANCE = 1e-3  # of a vector's elements and of scores, all of them at most 1

TEXTS = (
    "How do I parse a JSON document?",
    ".",
    "a",
    "￾￿",  # characters that a tokenizer drops: special tokens alone are left
    "🙂🙃 🧪 👩‍👩‍👧",
    "Wie öffne ich eine Datei? 如何打开文件",
    "heapq " * 15 + "merge",
    "word " * 2_000,  # longer than the model reads
    "csv " + "x" * 5_000,
    "logging\r\n\thandlers\x0b and  filters",
)
QUESTIONS = (
    "How do I parse a JSON document?",
    "How do I read a CSV file with a header?",
    "What does the with statement do?",
    "How are sockets closed? 🙂",
    "argparse " * 400,
)


@pytest.fixture(scope="module")
def gpu_wire(settings: Settings) -> Iterator[Wire]:
    """A server in profile gpu, for this file; proven gone at its end."""
    triton = TritonServer()
    with triton:
        connection = Wire(triton.start(ServeOptions(settings=settings, profile="gpu")))
        yield connection
        connection.close()
    assert triton.check_left_behind() == []


@pytest.fixture(params=["cpu", "gpu"])
def either_wire(request: pytest.FixtureRequest, wire: Wire, gpu_wire: Wire) -> Wire:
    return wire if request.param == "cpu" else gpu_wire


def batch(texts: Any) -> np.ndarray[Any, Any]:
    return np.array([text.encode() for text in texts], np.object_).reshape(-1, 1)


def answered(wire: Wire, model: str, **inputs: Any) -> dict[str, bytes]:
    answer = wire.ask(request(model, inputs, batched=model in {EMBEDDER, RETRIEVE, TOKENIZER, ENCODER}))
    assert not isinstance(answer, Failure), answer
    return answer


def vectors(wire: Wire, texts: Any, **inputs: Any) -> np.ndarray[Any, Any]:
    raw = answered(wire, EMBEDDER, text_input=batch(texts), **inputs)[EMBEDDING]
    return np.frombuffer(raw, np.float32).reshape(len(texts), -1)


def test_the_graph_is_the_nested_ensemble(gpu_wire: Wire) -> None:
    ready = {TOKENIZER, ENCODER, EMBEDDER, RETRIEVE, RAG, GENERATOR}
    assert {model for model in ready if _config(gpu_wire, model)} == ready
    assert [step["model_name"] for step in _config(gpu_wire, EMBEDDER)["ensemble_scheduling"]["step"]] == [
        TOKENIZER,
        ENCODER,
    ]


def test_vectors_are_those_of_profile_cpu_in_one_batch_and_alone(wire: Wire, gpu_wire: Wire) -> None:
    for batches in ([TEXTS], [(text,) for text in TEXTS]):
        expected, found = (np.concatenate([vectors(one, texts) for texts in batches]) for one in (wire, gpu_wire))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=TOLERANCE)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_vectors_stay_with_their_requests_when_many_of_all_lengths_come_at_once(wire: Wire, gpu_wire: Wire) -> None:
    """By their angle: what shares its batch moves an INT8 vector in either profile (docs/benchmarks/embedder.md)."""
    expected = vectors(wire, TEXTS)
    order = [number % len(TEXTS) for number in range(8 * len(TEXTS))]
    with ThreadPoolExecutor(16) as pool:
        found = np.stack(list(pool.map(lambda number: vectors(gpu_wire, [TEXTS[number]])[0], order)))
    cosines = found @ expected.T
    assert cosines[np.arange(len(order)), order].min() > 0.999
    assert cosines.argmax(axis=1).tolist() == order


def test_a_full_batch_is_taken(wire: Wire, gpu_wire: Wire) -> None:
    texts = [f"{TEXTS[number % 7]} {number}" for number in range(64)]
    np.testing.assert_allclose(vectors(gpu_wire, texts), vectors(wire, texts), atol=TOLERANCE)


def test_passages_can_be_embedded_too(wire: Wire, gpu_wire: Wire) -> None:
    kinds = {INPUT_TYPE: batch(["passage", "query"])}
    np.testing.assert_allclose(vectors(gpu_wire, TEXTS[:2], **kinds), vectors(wire, TEXTS[:2], **kinds), atol=TOLERANCE)


def test_the_same_passages_are_found_with_the_same_scores(wire: Wire, gpu_wire: Wire) -> None:
    inputs = {TEXT_INPUT: batch(QUESTIONS), "num_passages": np.full((len(QUESTIONS), 1), 7, np.int32)}
    expected, found = (answered(one, RETRIEVE, **inputs) for one in (wire, gpu_wire))
    assert found[PASSAGE_IDS] == expected[PASSAGE_IDS]
    assert found[PASSAGES] == expected[PASSAGES]
    scores = [np.frombuffer(one[SCORES], np.float32) for one in (found, expected)]
    np.testing.assert_allclose(*scores, atol=TOLERANCE)


@pytest.mark.parametrize("model", [RAG, GENERATOR])
@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_answered_alike_from_the_same_sources(
    wire: Wire, gpu_wire: Wire, model: str, question: str
) -> None:
    expected, found = (answered(one, model, text_input=question) for one in (wire, gpu_wire))
    assert found[TEXT_OUTPUT] == expected[TEXT_OUTPUT]
    sources = [json.loads(strings(one[SOURCES])[0]) for one in (found, expected)]
    assert [source["passage_id"] for source in sources[0]] == [source["passage_id"] for source in sources[1]]
    assert found["degraded"] == expected["degraded"]


BAD = {
    "a missing text": ({"num_passages": 3}, (RETRIEVE, RAG, GENERATOR)),
    "an empty text": ({TEXT_INPUT: ""}, (EMBEDDER, RETRIEVE, RAG)),
    "a blank text": ({TEXT_INPUT: " \t"}, (EMBEDDER, RETRIEVE, RAG)),
    "a megabyte": ({TEXT_INPUT: "x" * 1_000_000}, (EMBEDDER, RETRIEVE, RAG)),
    "no UTF-8": ({TEXT_INPUT: b"ab\xff"}, (EMBEDDER, RETRIEVE, RAG)),
    "a NUL character": ({TEXT_INPUT: "a\0b"}, (EMBEDDER, RETRIEVE, RAG)),
    "a type that is none": ({TEXT_INPUT: "text", INPUT_TYPE: "answer"}, (EMBEDDER,)),
    "no tokens": ({TEXT_INPUT: "text", "max_tokens": 0}, (RAG,)),
}


@pytest.mark.parametrize(("model", "case"), [(model, case) for case, (_, models) in BAD.items() for model in models])
def test_a_bad_request_gets_the_error_that_it_gets_in_profile_cpu(
    wire: Wire, gpu_wire: Wire, model: str, case: str
) -> None:
    failures = [one.ask(request(model, BAD[case][0])) for one in (wire, gpu_wire)]
    errors = []
    for failure in failures:
        assert isinstance(failure, Failure), failure
        errors.append(parse_error(failure.message))
    assert errors[0] is not None
    assert (type(errors[1]), str(errors[1])) == (type(errors[0]), str(errors[0]))
    assert failures[0].status == failures[1].status


def test_embedder_alone_says_that_the_text_is_missing(either_wire: Wire) -> None:
    failure = either_wire.unary(request(EMBEDDER, {"num_passages": 3}))
    assert isinstance(failure, Failure)
    assert failure.status == "INVALID_ARGUMENT"
    assert "bad_request: text_input is missing" in failure.message


def test_a_bad_text_fails_alone_among_good_ones(wire: Wire, gpu_wire: Wire) -> None:
    expected = vectors(wire, ["good"])[0]
    texts = ["good", " ", "good", "x" * 40_000, "good"] * 6

    def embed(text: str) -> dict[str, bytes] | Failure:
        return gpu_wire.unary(request(EMBEDDER, {TEXT_INPUT: text}))

    with ThreadPoolExecutor(len(texts)) as pool:
        for text, answer in zip(texts, pool.map(embed, texts), strict=True):
            assert isinstance(answer, Failure) is (text != "good"), answer
            if not isinstance(answer, Failure):
                assert np.frombuffer(answer[EMBEDDING], np.float32) @ expected > 0.999


def test_the_tokenizer_pads_a_request_to_the_smallest_bucket_that_holds_it(gpu_wire: Wire) -> None:
    for texts, length in ((["a"], 16), (["a", "word " * 20], 32), (["word " * 2_000], 256)):
        answer = answered(gpu_wire, TOKENIZER, text_input=batch(texts))
        ids, mask = (
            np.frombuffer(answer[name], np.int32).reshape(len(texts), -1) for name in (INPUT_IDS, ATTENTION_MASK)
        )
        assert ids.shape[1] == length
        assert (ids[mask == 0] == 0).all()
        assert (np.diff(mask, axis=1) <= 0).all(), "padding stands on the right"


@pytest.mark.parametrize(
    ("ids", "mask", "named"),
    [
        (np.ones((1, 4), np.int32), np.zeros((1, 4), np.int32), "row 0 of attention_mask"),
        (np.ones((2, 3), np.int32), np.array([[1, 1, 0], [0, 1, 1]], np.int32), "row 1 of attention_mask"),
        (np.ones((1, 4), np.int32), np.ones((1, 5), np.int32), "shape"),
        (np.ones((1, 300), np.int32), np.ones((1, 300), np.int32), "300 tokens"),
    ],
)
def test_the_encoder_refuses_what_is_no_padded_text(
    gpu_wire: Wire, ids: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], named: str
) -> None:
    failure = gpu_wire.unary(request(ENCODER, {INPUT_IDS: ids, ATTENTION_MASK: mask}, batched=True))
    assert isinstance(failure, Failure)
    assert "bad_request: " in failure.message
    assert named in failure.message


def test_tokens_are_counted(gpu_wire: Wire) -> None:
    def tokens() -> list[float]:
        return [gpu_wire.metric("tritonrag_embedder_tokens", kind=kind) for kind in ("real", "computed")]

    before = settled(tokens)
    vectors(gpu_wire, ["one two three"])
    real, computed = (now - then for now, then in zip(settled(tokens), before, strict=True))
    assert real == computed == 5, "three words and two special tokens; the stand-in takes the padding away"
    for model in (TOKENIZER, ENCODER, "retriever"):
        assert gpu_wire.metric("nv_inference_request_success", model=model) > 0


def _config(wire: Wire, model: str) -> Any:
    url, headers = f"{wire.server.http_url}/v2/models/{model}/config", dict(wire.server.admin_headers)
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)
