"""One generation for all who ask the same at the same time.

The task that produces belongs to nobody's request: whoever asked first may leave, the others go on. When the last one
leaves, it is ended.
"""

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from tritonrag_backends.generation.engine import Delta
from tritonrag_client.errors import InternalError, RagError, UnavailableError

_LOG = logging.getLogger(__name__)


class SharedAnswer:
    """An answer in the making: its deltas, kept once, for any number of readers, each at its own pace.

    `known` is the producer's to set: nothing was generated.
    """

    def __init__(self, produce: "Produce") -> None:
        self._deltas: list[Delta] = []
        self._news = asyncio.Event()
        self._readers = 0
        self._closing = False
        self.known = False
        self.task: asyncio.Task[None] = asyncio.get_running_loop().create_task(produce(self))
        self.task.add_done_callback(self._ended)

    @property
    def deltas(self) -> Sequence[Delta]:
        """Those so far."""
        return self._deltas

    @property
    def complete(self) -> bool:
        """Whether the last delta is there."""
        return bool(self._deltas) and self._deltas[-1].finish_reason is not None

    @property
    def joinable(self) -> bool:
        """Whether somebody new will get a whole answer of it."""
        broken = self.complete and self._deltas[-1].finish_reason not in {"stop", "length"}
        return not (self._closing or self.task.done() or broken)

    def append(self, delta: Delta) -> None:
        """Hand a delta to all readers; for the producer."""
        self._deltas.append(delta)
        self._tell()

    async def read(self) -> AsyncGenerator[Delta, None]:
        """All deltas from the first. The last reader to leave ends the production, and waits until it has ended.

        Raises the producer's RagError, to each reader an instance of its own: one for all would gather the traceback of each
        and hold on to their frames. Anything else that the producer raises becomes an InternalError.
        """
        self._readers += 1
        try:
            position = 0
            while not self.task.done() or position < len(self._deltas):
                if position == len(self._deltas):
                    await self._news.wait()
                    continue
                delta = self._deltas[position]
                position += 1
                yield delta
                if delta.finish_reason is not None:
                    return
            self._raise_failure()
        finally:
            self._readers -= 1
            if self._readers == 0:
                await self._close()

    async def _close(self) -> None:
        if not self.complete:  # what is complete has its end, storing it included, before it
            self._closing = True
            self.task.cancel()
        if not self.task.done():
            await asyncio.wait({self.task})

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tell()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RagError):
            _LOG.error("an answer's generation failed", exc_info=error)

    def _raise_failure(self) -> None:
        if self.task.cancelled():
            raise UnavailableError("the generation was ended before the answer was complete; try again")
        error = self.task.exception()
        if isinstance(error, RagError):
            raise copy.copy(error) from error
        if error is not None:
            raise InternalError("the answer's generation failed; the server's log tells why") from error


Produce = Callable[[SharedAnswer], Coroutine[Any, Any, None]]


class InFlight:
    """Answers in the making, by key; lives in one event loop."""

    def __init__(self) -> None:
        self._shared: dict[str, SharedAnswer] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # an event loop holds its tasks weakly

    def __len__(self) -> int:
        return sum(not task.done() for task in self._tasks)

    def join(self, key: str, produce: Produce) -> tuple[SharedAnswer, bool]:
        """The answer in the making under this key and True, or else a new one that `produce` makes; read it before you await."""
        running = self._shared.get(key)
        if running is not None and running.joinable:
            return running, True
        shared = SharedAnswer(produce)
        self._shared[key] = shared
        self._tasks.add(shared.task)
        shared.task.add_done_callback(lambda task: self._forget(key, shared, task))
        return shared, False

    async def close(self) -> None:
        """End all; their readers get UnavailableError."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, key: str, shared: SharedAnswer, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._shared.get(key) is shared:
            del self._shared[key]
