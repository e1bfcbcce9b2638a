"""Waiting that ends at its deadline, and at once when the engine is closed; and the places that answers wait for."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tritonrag_client.errors import OverloadedError, RagError, UnavailableError


class Waits:
    """Every await of the engine stands in an `until`. Lives in one event loop.

    An `until` must begin and end in one task, so that it never spans a `yield`: the next delta may be asked for by another task.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self.closed = False

    @asynccontextmanager
    async def until(self, deadline_s: float, error: RagError) -> AsyncGenerator[None, None]:
        """Raises `error` once the loop's clock has reached `deadline_s`, UnavailableError once the engine is closed."""
        if self.closed:
            raise closed_error()
        timeout = asyncio.timeout_at(None if math.isinf(deadline_s) else deadline_s)
        try:
            async with timeout:
                self._running.add(timeout)
                try:
                    yield
                finally:
                    self._running.discard(timeout)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise (closed_error() if self.closed else error) from None

    def close(self) -> None:
        """End all waiting, now and later."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for timeout in self._running:
            if not timeout.expired():
                timeout.reschedule(now)


class Places:
    """So many answers may run at once, and so many more may wait; first come, first served."""

    def __init__(self, *, slots: int, max_waiting: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self.slots = slots
        self._max_waiting = max_waiting
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def place(self, waits: Waits, deadline_s: float, error: RagError) -> AsyncGenerator[None, None]:
        """Hold a place. Raises OverloadedError where too many wait already, and what `Waits.until` raises."""
        await self._take(waits, deadline_s, error)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _take(self, waits: Waits, deadline_s: float, error: RagError) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        if self.waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self.running} answers run and {self.waiting} wait already; try again later,"
                " or set TRITONRAG_OPENAI_MAX_CONNECTIONS and TRITONRAG_OPENAI_MAX_WAITING higher"
            )
        self.waiting += 1
        try:
            async with waits.until(deadline_s, error):
                await self._free.acquire()
        finally:
            self.waiting -= 1


def closed_error() -> UnavailableError:
    """What ends all that runs or waits when the engine is closed."""
    return UnavailableError("the generation engine is being closed; try again when the server is back")
