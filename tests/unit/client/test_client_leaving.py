"""Leaving an answer early."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from client_double import SHORT, SOURCE, Context, Message, ScriptedTriton, Talk, delta, fails, final, slow_answer

from tritonrag_client import AsyncRagClient, DeadlineError, RagClient, RequestCancelledError


def test_leaving_the_block_ends_the_call_at_the_server(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        with client.stream("Who?", request_id="me") as stream:
            assert stream.sources == ()
            assert next(stream).text == "Hello "
        assert triton.vanished.wait(10)
        assert (stream.sources, stream.request_id) == ((SOURCE,), "me")


async def test_leaving_the_async_block_ends_the_call_at_the_server(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url) as client:
        async with client.stream("Who?") as stream:
            async for part in stream:
                assert part.text == "Hello "
                break
        assert await asyncio.to_thread(triton.vanished.wait, 10)


def test_dropping_a_stream_ends_the_call_at_the_server(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        for _ in client.stream("Who?"):
            break
        gc.collect()
        assert triton.vanished.wait(10)


async def test_dropping_an_async_stream_ends_the_call_at_the_server(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url) as client:
        async for _ in client.stream("Who?"):
            break
        gc.collect()
        assert await asyncio.to_thread(triton.vanished.wait, 10)


async def test_a_cancelled_task_ends_the_call_at_the_server(url: str, triton: ScriptedTriton) -> None:
    begun = threading.Event()
    triton.script = [lambda request, context: begun.set() or triton.hang(request, context)]
    async with AsyncRagClient(url) as client:
        task = asyncio.create_task(client.ask("Who?"))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(triton.vanished.wait, 10)


def test_reading_on_after_cancel_is_told_not_taken_for_the_end(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        stream = client.stream("Who?")
        next(stream)
        stream.cancel()
        with pytest.raises(RequestCancelledError):
            next(stream)


async def test_reading_on_after_async_cancel_is_told_not_taken_for_the_end(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url) as client:
        stream = client.stream("Who?")
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # lets the reader begin to wait
        await stream.cancel()
        with pytest.raises(RequestCancelledError):
            await reading


def test_cancel_from_another_thread_wakes_the_reader(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        stream = client.stream("Who?")
        next(stream)
        canceller = threading.Thread(target=stream.cancel)
        canceller.start()
        with pytest.raises(RequestCancelledError):
            next(stream)
        canceller.join()


def test_an_unread_stream_sends_nothing(url: str, triton: ScriptedTriton) -> None:
    with RagClient(url) as client, client.stream("Who?"):
        pass
    assert triton.requests == []


def test_on_the_ensemble_leaving_early_also_sends_stop(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url, model="rag") as client, client.stream("Who?", request_id="me", tenant="blue") as stream:
        next(stream)
    asked, stop = triton.requests
    assert (asked.model_name, stop.model_name, stop.id) == ("rag", "generator", "me")
    assert triton.inputs()["tenant"] == ([1], [b"blue"])


async def test_on_the_ensemble_leaving_an_async_stream_early_also_sends_stop(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url, model="rag") as client, client.stream("Who?", request_id="me") as stream:
        await anext(stream)
    assert [(request.model_name, request.id) for request in triton.requests] == [("rag", "me"), ("generator", "me")]


def test_on_the_ensemble_a_spent_deadline_sends_stop(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [slow_answer(triton)]
    with pytest.raises(DeadlineError):
        talk(url, "ask", "Who?", client={"model": "rag"}, timeouts=SHORT)
    assert triton.requests[-1].inputs[0].name == "stop"


@pytest.mark.parametrize("client", [{"model": "rag"}, {"model": "generator"}])
def test_a_complete_answer_is_neither_cancelled_nor_stopped(
    url: str, triton: ScriptedTriton, talk: Talk, client: dict[str, Any]
) -> None:
    ends: list[bool] = []

    def entry(_request: Message, context: Context) -> Iterator[Any]:
        yield delta("Hello", first=True, finish="stop")
        yield final()
        ends.append(context.is_active())

    triton.script = [entry]
    assert talk(url, "ask", "Who?", client=client).text == "Hello"
    assert (len(triton.requests), ends) == (1, [True])


def test_a_failed_stop_is_logged_and_does_not_hide_the_reason_for_leaving(
    url: str, triton: ScriptedTriton, caplog: pytest.LogCaptureFixture
) -> None:
    triton.script = [slow_answer(triton), fails(grpc.StatusCode.INTERNAL, "broken")]
    with RagClient(url, model="rag") as client:
        stream = client.stream("Who?", request_id="me")
        next(stream)
        with pytest.raises(ZeroDivisionError), stream:
            raise ZeroDivisionError
    assert "request me may go on at the server: internal: broken" in caplog.text
