"""Leaving an answer early."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from client_double import (
    SHORT,
    SOURCE,
    Context,
    Message,
    ScriptedTriton,
    Talk,
    delta,
    error,
    fails,
    final,
    says,
    slow_answer,
)

from tritonrag_client import AsyncRagClient, DeadlineError, RagClient, RequestCancelledError

MODELS = ("generator", "rag")


def _quick_answer(triton: ScriptedTriton) -> Any:
    """All its messages at once."""

    def entry(_request: Message, context: Context) -> Iterator[Any]:
        yield delta("Hello ", first=True)
        yield from (delta("again ") for _ in range(20))
        yield final(delta("", finish="stop"))
        triton.ends.put("read out" if context.is_active() else "cut off")

    return entry


@pytest.mark.parametrize("model", MODELS)
def test_leaving_the_block_stops_the_answer_and_reads_it_out(url: str, triton: ScriptedTriton, model: Any) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url, model=model) as client:
        with client.stream("Who?", request_id="me", tenant="blue") as stream:
            assert stream.sources == ()
            assert next(stream).text == "Hello "
        assert triton.ends.get_nowait() == "read out"
        assert (stream.sources, stream.request_id) == ((SOURCE,), "me")
    asked, stop = triton.requests
    assert (asked.model_name, stop.model_name, stop.id) == (model, "generator", "me")
    assert triton.inputs()["stop"] == ([1], [True])
    assert triton.inputs()["tenant"] == ([1], [b"blue"])


@pytest.mark.parametrize("model", MODELS)
async def test_leaving_the_async_block_stops_the_answer_and_reads_it_out(
    url: str, triton: ScriptedTriton, model: Any
) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url, model=model) as client:
        async with client.stream("Who?", request_id="me") as stream:
            async for part in stream:
                assert part.text == "Hello "
                break
        assert triton.ends.get_nowait() == "read out"
    assert [(request.model_name, request.id) for request in triton.requests] == [(model, "me"), ("generator", "me")]


def test_an_answer_that_is_all_but_there_is_read_out_without_a_stop(url: str, triton: ScriptedTriton) -> None:
    triton.script = [_quick_answer(triton)]
    with RagClient(url) as client, client.stream("Who?") as stream:
        next(stream)
    assert triton.ends.get_nowait() == "read out"
    assert len(triton.requests) == 1


async def test_an_async_answer_that_is_all_but_there_is_read_out_without_a_stop(
    url: str, triton: ScriptedTriton
) -> None:
    triton.script = [_quick_answer(triton)]
    async with AsyncRagClient(url) as client, client.stream("Who?") as stream:
        await anext(stream)
    assert triton.ends.get_nowait() == "read out"
    assert len(triton.requests) == 1


def test_a_server_that_does_not_obey_the_stop_is_cut_off(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton, obeys=False)]
    with RagClient(url) as client:
        with client.stream("Who?", request_id="me") as stream:
            next(stream)
        assert triton.ends.get(timeout=10) == "cut off"
    assert [request.id for request in triton.requests] == ["me", "me"]


async def test_a_server_that_does_not_obey_the_stop_is_cut_off_by_the_async_client(
    url: str, triton: ScriptedTriton
) -> None:
    triton.script = [slow_answer(triton, obeys=False)]
    async with AsyncRagClient(url) as client:
        async with client.stream("Who?", request_id="me") as stream:
            await anext(stream)
        assert await asyncio.to_thread(triton.ends.get, timeout=10) == "cut off"
    assert [request.id for request in triton.requests] == ["me", "me"]


def test_a_stop_that_comes_too_early_is_sent_again(url: str, triton: ScriptedTriton) -> None:
    answer = slow_answer(triton)
    triton.script = [answer, says(error("not_found: no generation runs under the id 'me'")), answer]
    with RagClient(url) as client, client.stream("Who?", request_id="me") as stream:
        next(stream)
    assert triton.ends.get_nowait() == "read out"
    assert [request.id for request in triton.requests] == ["me"] * 3


def test_closing_the_client_waits_for_a_dropped_stream_to_be_left(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        for _ in client.stream("Who?"):
            break
        gc.collect()
    assert triton.ends.get_nowait() == "read out"


async def test_closing_the_async_client_waits_for_a_dropped_stream_to_be_left(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url) as client:
        async for _ in client.stream("Who?"):
            break
        gc.collect()
    assert triton.ends.get_nowait() == "read out"


def test_closing_the_client_leaves_what_still_runs(url: str, triton: ScriptedTriton) -> None:
    triton.script = [slow_answer(triton)]
    with RagClient(url) as client:
        stream = client.stream("Who?")
        next(stream)
    assert triton.ends.get_nowait() == "read out"
    with pytest.raises(RequestCancelledError):
        next(stream)


def test_an_interrupt_from_the_keyboard_leaves_the_answer_too(url: str, triton: ScriptedTriton) -> None:
    answer = slow_answer(triton)

    def interrupting(request: Message, context: Context) -> Iterator[Any]:
        messages = answer(request, context)
        yield next(messages)
        reading.wait(10)
        while not _main_thread_waits():
            context.is_active()
        os.kill(os.getpid(), signal.SIGINT)
        yield from messages

    reading = threading.Event()
    triton.script = [interrupting, answer]
    with RagClient(url) as client:
        stream = client.stream("Who?")
        with pytest.raises(KeyboardInterrupt), stream:  # noqa: PT012 - the interrupt shall find the second read
            next(stream)
            reading.set()
            next(stream)
        assert triton.ends.get_nowait() == "read out"
        with pytest.raises(RequestCancelledError):
            next(stream)


def _main_thread_waits() -> bool:
    """Whether it waits inside gRPC, where an interrupt does no harm; elsewhere in gRPC it can cost a channel its thread."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return frame.f_code is threading.Condition.wait.__code__


@pytest.mark.parametrize("model", MODELS)
async def test_a_cancelled_task_does_not_wait_for_its_answer_to_be_left_but_the_client_does(
    url: str, triton: ScriptedTriton, model: Any
) -> None:
    begun = threading.Event()
    answer = slow_answer(triton)
    triton.script = [lambda request, context: begun.set() or answer(request, context), answer]
    async with AsyncRagClient(url, model=model) as client:
        task = asyncio.create_task(client.ask("Who?"))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(triton.requests) == 1
    assert triton.ends.get_nowait() == "read out"
    assert [request.model_name for request in triton.requests] == [model, "generator"]


async def test_a_task_that_is_cancelled_while_it_reads_a_stream_gives_the_answer_up(
    url: str, triton: ScriptedTriton
) -> None:
    triton.script = [slow_answer(triton)]
    async with AsyncRagClient(url) as client:
        stream = client.stream("Who?")
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # lets the reader begin to wait
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(RequestCancelledError):
            await anext(stream)
    assert triton.ends.get_nowait() == "read out"


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


@pytest.mark.parametrize(("obeys", "end"), [(True, "read out"), (False, "cut off")])
def test_cancel_from_another_thread_wakes_the_reader(url: str, triton: ScriptedTriton, obeys: bool, end: str) -> None:
    triton.script = [slow_answer(triton, obeys=obeys)]
    with RagClient(url) as client:
        stream = client.stream("Who?")
        next(stream)
        canceller = threading.Thread(target=stream.cancel)
        canceller.start()
        with pytest.raises(RequestCancelledError):
            next(stream)
        canceller.join()
        assert triton.ends.get(timeout=10) == end


def test_an_unread_stream_sends_nothing(url: str, triton: ScriptedTriton) -> None:
    with RagClient(url) as client, client.stream("Who?"):
        pass
    assert triton.requests == []


def test_on_the_ensemble_a_spent_deadline_sends_stop(url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [slow_answer(triton)]
    with pytest.raises(DeadlineError):
        talk(url, "ask", "Who?", client={"model": "rag"}, timeouts=SHORT)
    assert triton.requests[-1].inputs[0].name == "stop"


@pytest.mark.parametrize("model", MODELS)
def test_a_complete_answer_is_neither_cancelled_nor_stopped(
    url: str, triton: ScriptedTriton, talk: Talk, model: str
) -> None:
    ends: list[bool] = []

    def entry(_request: Message, context: Context) -> Iterator[Any]:
        yield delta("Hello", first=True, finish="stop")
        yield final()
        ends.append(context.is_active())

    triton.script = [entry]
    assert talk(url, "ask", "Who?", client={"model": model}).text == "Hello"
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
