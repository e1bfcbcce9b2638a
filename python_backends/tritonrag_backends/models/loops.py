"""Running a last coroutine in the event loop that a model's requests ran in."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
_POLL_S: Final = 0.01
_GRACE_S: Final = 1.0  # for a loop that is busy to notice that the time is over


def run_in(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Its result, from another thread than the loop's, whether the loop runs, has been told to stop, or has stopped.

    Triton's stub tells the loop to stop and then calls `finalize` without waiting for it (release 24.10): what is handed to the
    loop then may be begun and is never ended, so it is ended here. Raises TimeoutError after `timeout_s`.
    """
    future = asyncio.run_coroutine_threadsafe(_within(coroutine, timeout_s), loop)
    deadline = time.monotonic() + timeout_s + _GRACE_S
    while loop.is_running() and not future.done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the event loop did not get to its last work within {timeout_s:g} s")
        time.sleep(_POLL_S)
    return future.result() if future.done() else loop.run_until_complete(asyncio.wrap_future(future, loop=loop))


async def _within(coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
    async with asyncio.timeout(timeout_s):
        return await coroutine
