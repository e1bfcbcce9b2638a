"""Failures, retries and deadlines, alike for both clients."""

import socket

import grpc
import numpy as np
import pytest
from client_double import (
    ANSWER,
    BUSY,
    ONCE,
    SHORT,
    ScriptedTriton,
    Talk,
    Value,
    delta,
    embedding,
    error,
    fails,
    final,
    found,
    says,
    tensors,
)
from tritonclient.grpc import service_pb2

from tritonrag_client import (
    BadRequestError,
    DeadlineError,
    InternalError,
    OverloadedError,
    RagClient,
    RetryPolicy,
    Timeouts,
    UnavailableError,
)
from tritonrag_client.errors import ERROR_TYPES


@pytest.mark.parametrize("code", sorted(ERROR_TYPES))
def test_an_error_of_ours_comes_back_as_it_was_raised(url: str, triton: ScriptedTriton, talk: Talk, code: str) -> None:
    text = f"in ensemble 'rag', {code}: num_passages is 0; ask for at least 1"
    triton.script = [says(error(text), final())]
    with pytest.raises(ERROR_TYPES[code], match=rf"^{code}: num_passages is 0; ask for at least 1$"):
        talk(url, "ask", "Who?", client=ONCE)
    triton.script = [fails(grpc.StatusCode.UNAVAILABLE, text)]
    with pytest.raises(ERROR_TYPES[code], match=rf"^{code}: num_passages is 0; ask for at least 1"):
        talk(url, "embed", "Who?", client=ONCE)


def test_a_busy_server_is_asked_again_until_it_answers(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [BUSY, BUSY, embedding]
    assert talk(url, "embed", "x").shape == (2,)
    assert len(triton.requests) == 3


def test_pauses_double_up_to_their_limit_and_tries_are_counted(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [BUSY]
    policy = RetryPolicy(attempts=5, base_s=1, max_s=4, jitter=0.5)
    with pytest.raises(OverloadedError, match="maximum queue size"):
        talk(url, "embed", "x", client={"retry": policy, "_chance": talk.chance(draw=0.5)})
    assert talk.pauses_s == [0.75, 1.5, 3, 3]
    assert len(triton.requests) == 5


def test_no_pause_reaches_past_the_deadline(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [BUSY]
    settings = {"retry": RetryPolicy(attempts=99, base_s=4, max_s=4, jitter=0), "_chance": talk.chance()}
    with pytest.raises(OverloadedError):
        talk(url, "embed", "x", client=settings, timeouts=Timeouts(connect_s=10, total_s=10))
    assert talk.pauses_s == [4, 4]


def test_an_error_that_a_retry_can_not_help_is_not_tried_again(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [fails(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'text_input'")]
    with pytest.raises(BadRequestError, match="unexpected shape"):
        talk(url, "search", "x")
    assert (len(triton.requests), talk.pauses_s) == (1, [])


def test_an_answer_that_has_not_begun_is_asked_for_again(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [says(error("overloaded: come back later"), final()), BUSY, ANSWER]
    assert "".join(part.text for part in talk(url, "stream", "Who?")) == "Hello world [1]"
    assert len({request.id for request in triton.requests}) == 1
    assert len(triton.requests) == 3


@pytest.mark.parametrize("method", ["ask", "stream"])
def test_an_answer_that_has_begun_is_never_asked_for_again(
    url: str, triton: ScriptedTriton, talk: Talk, method: str
) -> None:
    triton.script = [says(delta("Hello ", first=True), error("unavailable: the engine went away"), final()), ANSWER]
    with pytest.raises(UnavailableError, match="the engine went away"):
        talk(url, method, "Who?")
    assert len(triton.requests) == 1


@pytest.mark.parametrize(
    "entry",
    [
        says(),
        says(final()),
        says(delta("Hello ", first=True)),
        says(final(service_pb2.ModelStreamInferResponse(infer_response=found(["q"])))),
    ],
    ids=["nothing", "only the final flag", "no end", "another model's outputs"],
)
def test_a_stream_that_is_not_a_whole_answer_is_an_error(
    url: str, triton: ScriptedTriton, talk: Talk, entry: Value
) -> None:
    triton.script = [entry]
    with pytest.raises(InternalError):
        talk(url, "ask", "Who?")


@pytest.mark.parametrize(
    "response",
    [
        tensors({"embedding": np.zeros(3, np.float32)}),
        tensors({"other": np.zeros((1, 3), np.float32)}),
        service_pb2.ModelInferResponse(raw_output_contents=[b"abc"]),
    ],
    ids=["no batch", "no embedding", "contents without outputs"],
)
def test_a_response_against_the_contract_is_an_internal_error(
    url: str, triton: ScriptedTriton, talk: Talk, response: Value
) -> None:
    triton.script = [lambda *_: response]
    with pytest.raises(InternalError):
        talk(url, "embed", ["x"])


@pytest.mark.parametrize("method", ["ask", "embed"])
def test_a_spent_deadline_is_told_with_its_length_and_ends_the_call(
    url: str, triton: ScriptedTriton, talk: Talk, method: str
) -> None:
    triton.script = [triton.hang]
    with pytest.raises(DeadlineError, match=r"total_s = 0\.2"):
        talk(url, method, "x", timeouts=SHORT)
    assert triton.vanished.wait(10)
    assert len(triton.requests) == 1


def test_a_silent_address_costs_connect_s_and_names_the_server(talk: Talk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"127.0.0.1:{hole.getsockname()[1]}"
        settings = {"timeouts": Timeouts(connect_s=0.1, total_s=60), **ONCE}
        with pytest.raises(UnavailableError, match=f"{url} did not answer within connect_s"):
            talk(url, "ask", "x", client=settings)


def test_a_refused_connection_is_unavailable_and_tried_again(talk: Talk) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        talk("127.0.0.1:1", "embed", "x", client={"retry": RetryPolicy(attempts=3)})
    assert len(talk.pauses_s) == 2


def test_the_connection_is_proved_once(url: str, triton: ScriptedTriton) -> None:
    triton.script = [embedding]
    with RagClient(url) as client:
        for _ in range(3):
            client.embed("x")
    assert triton.lives == 1
