"""What comes back from both clients."""

import socket

import numpy as np
import pytest
from client_double import ANSWER, BROKEN_OFF, SOURCE, ScriptedTriton, Talk, delta, embedding, final, found, says, search

from tritonrag_client import AsyncRagClient, Health, InternalError, RagClient, Timeouts


def test_ask_gives_the_whole_answer(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [says(final(delta("Hello [1]", sources=(SOURCE,), finish="stop", degraded="cache: down")))]
    answer = talk(url, "ask", "Who?", request_id="me")
    assert (answer.text, answer.finish_reason, answer.degraded, answer.request_id) == (
        "Hello [1]",
        "stop",
        "cache: down",
        "me",
    )
    assert answer.sources == answer.cited == (SOURCE,)


def test_stream_gives_deltas_whose_first_bears_the_sources(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [ANSWER]
    first, last = talk(url, "stream", "Who?")
    assert (first.text, first.sources, first.finish_reason) == ("Hello ", (SOURCE,), "")
    assert (last.text, last.sources, last.finish_reason) == ("world [1]", (), "stop")


@pytest.mark.parametrize("method", ["ask", "stream"])
def test_an_answer_that_broke_off_comes_as_far_as_it_did_and_says_so(
    url: str, triton: ScriptedTriton, talk: Talk, method: str
) -> None:
    triton.script = [BROKEN_OFF, ANSWER]
    result = talk(url, method, "Who?")
    if method == "stream":
        assert [(part.text, part.finish_reason) for part in result] == [("Hello ", ""), ("", "error")]
        assert result[-1].degraded == "the engine went away"
    else:
        assert (result.text, result.finish_reason) == ("Hello ", "error")
        assert (result.sources, result.degraded) == ((SOURCE,), "the engine went away")
    assert len(triton.requests) == 1


def test_a_stream_knows_how_its_answer_ended(url: str, triton: ScriptedTriton) -> None:
    triton.script = [BROKEN_OFF]
    with RagClient(url) as client, client.stream("Who?") as stream:
        next(stream)
        assert stream.finish_reason == ""
        assert [part.text for part in stream] == [""]
        assert stream.finish_reason == "error"


async def test_an_async_stream_knows_how_its_answer_ended(url: str, triton: ScriptedTriton) -> None:
    triton.script = [ANSWER]
    async with AsyncRagClient(url) as client, client.stream("Who?") as stream:
        await anext(stream)
        assert stream.finish_reason == ""
        assert [part.text async for part in stream] == ["world [1]"]
        assert stream.finish_reason == "stop"


def test_both_clients_give_equal_results(url: str, triton: ScriptedTriton) -> None:
    threads, loop = Talk("threads"), Talk("asyncio")
    for method, argument, entry in (
        ("ask", "Who?", ANSWER),
        ("stream", "Who?", ANSWER),
        ("search", "Who?", search),
        ("search", ["a", "b"], search),
        ("health", None, ANSWER),
    ):
        triton.script = [entry]
        arguments = [] if argument is None else [argument]
        options = {"request_id": "same"} if method in {"ask", "stream"} else {}
        assert threads(url, method, *arguments, **options) == loop(url, method, *arguments, **options)
    triton.script = [embedding]
    assert np.array_equal(threads(url, "embed", ["a", "b"]), loop(url, "embed", ["a", "b"]))


def test_search_of_one_question_gives_one_result_without_padding(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [search]
    result = talk(url, "search", "Who?")
    assert [passage.passage.text for passage in result.passages] == ["q0 0", "q0 1"]
    assert [passage.passage_id for passage in result.passages] == [0, 1]
    assert (result.index_version, result.degraded) == (3, "")


def test_search_tells_of_each_question_what_the_index_gave_up(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [lambda _request, _context: found(["a", "b"], degraded="on the CPU: é")]
    assert [result.degraded for result in talk(url, "search", ["a", "b"])] == ["on the CPU: é"] * 2


def test_passages_from_a_server_of_another_version_are_not_half_understood(
    url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    without = found(["a"])
    without.outputs.pop()
    without.raw_output_contents.pop()
    triton.script = [lambda _request, _context: without]
    with pytest.raises(InternalError, match="same version"):
        talk(url, "search", "a")


def test_a_sequence_goes_in_requests_of_up_to_64_and_comes_back_in_order(
    url: str, triton: ScriptedTriton, talk: Talk
) -> None:
    triton.script = [embedding]
    vectors = talk(url, "embed", ["text"] * 130)
    assert [request.inputs[0].shape[0] for request in triton.requests] == [64, 64, 2]
    assert vectors[:, 0].tolist() == [64.0] * 128 + [2.0] * 2
    assert vectors.dtype == np.float32
    assert vectors.flags.writeable


def test_one_text_gives_one_vector(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [embedding]
    assert talk(url, "embed", "text").tolist() == [1.0, 0.0]


def test_an_empty_sequence_costs_no_call(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    assert talk(url, "search", []) == []
    assert talk(url, "embed", []).shape == (0, 0)
    assert (triton.requests, triton.lives) == ([], 0)


def test_health_tells_of_each_model(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.ready_models = {"embedder", "generator"}
    health = talk(url, "health")
    assert (health.live, health.ready) == (True, True)
    assert health.models == {"embedder": True, "retriever": False, "generator": True, "retrieve": False, "rag": False}


def test_a_server_that_refuses_connections_is_not_live(talk: Talk) -> None:
    health = talk("127.0.0.1:1", "health")
    assert (health.live, health.ready, any(health.models.values())) == (False, False, False)
    assert isinstance(health, Health)


def test_a_server_that_accepts_and_says_nothing_is_not_live(talk: Talk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"127.0.0.1:{hole.getsockname()[1]}"
        assert not talk(url, "health", client={"timeouts": Timeouts(connect_s=0.1, total_s=60)}).live
