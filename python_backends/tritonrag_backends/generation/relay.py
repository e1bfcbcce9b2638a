"""Passing an engine's deltas on until they end, until nobody wants them any more, or until their time is spent."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, Literal

from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.gathering import Gathering
from tritonrag_backends.generation.running import Generation
from tritonrag_client.errors import DeadlineError

POLL_S = 0.05  # how soon a vanished client is noticed while the engine is silent
MOST_CHARACTERS = 2**18  # of an answer: sixty for each of the 4,096 tokens that one may ask for


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
    MOST_CHARACTERS ends with `length`.
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
            if news == "due" or (news == "delta" and upcoming.exception() is not None and gathering.holds):
                yield gathering.take()
                continue
            try:
                delta = upcoming.result() if news == "delta" else Delta(text="", finish_reason="cancelled")
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
        stopped.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait({upcoming})
        await deltas.aclose()


async def _news(
    upcoming: asyncio.Future[Delta],
    stopped: asyncio.Future[bool],
    is_cancelled: Callable[[], bool],
    poll_s: float,
    *,
    deadline_s: float,
    due_s: float,
) -> Literal["delta", "due", "unwanted"]:
    """Wait for the next delta, for the time of those that are held, or for the generation to be stopped or its client gone."""
    either: list[asyncio.Future[Any]] = [upcoming, stopped]
    loop = asyncio.get_running_loop()
    while not (stopped.done() or is_cancelled()):
        now_s = loop.time()
        if now_s >= deadline_s:
            raise DeadlineError("the time for this answer is spent; give it more, or ask for fewer max_tokens")
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
