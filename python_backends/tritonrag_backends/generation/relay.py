"""Passing an engine's deltas on, and waiting for what comes before them, until they end, until nobody wants them any more, or until
their time is spent.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.gathering import Gathering
from tritonrag_backends.generation.running import Generation
from tritonrag_client.errors import DeadlineError

T = TypeVar("T")
POLL_S = 0.05  # how soon a vanished client is noticed while the engine is silent
MOST_CHARACTERS = 2**18  # of an answer: sixty for each of the 4,096 tokens that one may ask for
CANCELLED: Final = Delta(text="", finish_reason="cancelled")


async def relay(
    deltas: AsyncGenerator[Delta, None],
    generation: Generation,
    is_cancelled: Callable[[], bool],
    poll_s: float = POLL_S,
    *,
    deadline_s: float = math.inf,
) -> AsyncGenerator[Delta, None]:
    """Yield the engine's deltas, several as one in a long answer; end with finish_reason `cancelled` when the generation is stopped
    or its client is gone.

    Raises DeadlineError once the event loop's clock has reached `deadline_s`. Whatever was asked for, an answer of more than
    MOST_CHARACTERS ends with `length`. Before it ends or raises, it passes on what is written.
    After the delta that bears a finish_reason nothing is asked any more: its receiver may have let go of the request.
    Always closes `deltas`, which aborts the engine's work.
    """
    stopped: asyncio.Future[bool] = asyncio.ensure_future(generation.stopped.wait())
    gathering = Gathering(asyncio.get_running_loop().time)
    upcoming: asyncio.Future[Delta] | None = None
    characters = 0
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(deltas))
            news = await _news(upcoming, stopped, is_cancelled, poll_s, deadline_s=deadline_s, due_s=gathering.due_s)
            raises = news == "late" or (news == "delta" and upcoming.exception() is not None)
            if news == "due" or (raises and gathering.holds):
                yield gathering.take()
                continue
            if news == "late":
                raise DeadlineError("the time for this answer is spent; give it more, or ask for fewer max_tokens")
            try:
                delta = upcoming.result() if news == "delta" else CANCELLED
            except StopAsyncIteration:
                return
            characters += len(delta.text)
            if characters > MOST_CHARACTERS and delta.finish_reason is None:
                delta = replace(delta, finish_reason="length")
            if (gathered := gathering.add(delta)) is not None:
                yield gathered
            if delta.finish_reason is not None:
                return
            upcoming = None
    finally:
        await _end(stopped, upcoming)
        await deltas.aclose()


async def unless_unwanted(
    work: Awaitable[T], generation: Generation, is_cancelled: Callable[[], bool], poll_s: float = POLL_S
) -> T | None:
    """What `work` comes to, or raises; None when the generation is stopped or its client is gone, which ends the work."""
    stopped: asyncio.Future[bool] = asyncio.ensure_future(generation.stopped.wait())
    result = asyncio.ensure_future(work)
    try:
        news = await _news(result, stopped, is_cancelled, poll_s)
        return result.result() if news == "delta" else None
    finally:
        await _end(stopped, result)


async def _end(*futures: asyncio.Future[Any] | None) -> None:
    """Cancel them, and wait until they are done."""
    there = [future for future in futures if future is not None]
    for future in there:
        future.cancel()
    await asyncio.gather(*there, return_exceptions=True)


async def _news(
    upcoming: asyncio.Future[Any],
    stopped: asyncio.Future[bool],
    is_cancelled: Callable[[], bool],
    poll_s: float,
    *,
    deadline_s: float = math.inf,
    due_s: float = math.inf,
) -> Literal["delta", "due", "late", "unwanted"]:
    """Wait for what comes next, for the time of those deltas that are held, for the deadline, or for the generation to be stopped
    or its client gone.
    """
    either: list[asyncio.Future[Any]] = [upcoming, stopped]
    loop = asyncio.get_running_loop()
    while not (stopped.done() or is_cancelled()):
        now_s = loop.time()
        if now_s >= deadline_s:
            return "late"
        await asyncio.wait(
            either,
            timeout=min(poll_s, deadline_s - now_s, max(0.0, due_s - now_s)),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if upcoming.done():
            return "unwanted" if stopped.done() else "delta"
        if loop.time() >= due_s:
            return "due"
    return "unwanted"
