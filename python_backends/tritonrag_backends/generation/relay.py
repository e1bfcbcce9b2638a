"""Passing an engine's deltas on until they end, until nobody wants them any more, or until their time is spent."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from typing import Any

from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.running import Generation
from tritonrag_client.errors import DeadlineError

POLL_S = 0.05  # how soon a vanished client is noticed while the engine is silent


async def relay(
    deltas: AsyncGenerator[Delta, None],
    generation: Generation,
    is_cancelled: Callable[[], bool],
    poll_s: float = POLL_S,
    *,
    deadline_s: float = math.inf,
) -> AsyncGenerator[Delta, None]:
    """Yield the engine's deltas; end with finish_reason `cancelled` when the generation is stopped or its client is gone.

    Raises DeadlineError once the event loop's clock has reached `deadline_s`.
    After the delta that bears a finish_reason nothing is asked any more: its receiver may have let go of the request.
    Always closes `deltas`, which aborts the engine's work.
    """
    stopped: asyncio.Future[bool] = asyncio.ensure_future(generation.stopped.wait())
    upcoming: asyncio.Future[Delta] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(deltas))
            if not await _arrives(upcoming, stopped, is_cancelled, poll_s, deadline_s):
                yield Delta(text="", finish_reason="cancelled")
                return
            try:
                delta = upcoming.result()
            except StopAsyncIteration:
                return
            yield delta
            if delta.finish_reason is not None:
                return
    finally:
        stopped.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait({upcoming})
        await deltas.aclose()


async def _arrives(
    upcoming: asyncio.Future[Delta],
    stopped: asyncio.Future[bool],
    is_cancelled: Callable[[], bool],
    poll_s: float,
    deadline_s: float,
) -> bool:
    """Wait for the next delta; False where the generation is stopped or its client gone before."""
    either: list[asyncio.Future[Any]] = [upcoming, stopped]
    loop = asyncio.get_running_loop()
    while not (stopped.done() or is_cancelled()):
        left_s = deadline_s - loop.time()
        if left_s <= 0:
            raise DeadlineError("the time for this answer is spent; give it more, or ask for fewer max_tokens")
        await asyncio.wait(either, timeout=min(poll_s, left_s), return_when=asyncio.FIRST_COMPLETED)
        if upcoming.done():
            return not stopped.done()
    return False
