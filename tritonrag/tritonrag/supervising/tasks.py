"""The tasks of one watch: started at any time, cancelled together, and none fails unheard."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Lives in one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin something; it may be cancelled by itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    def raise_failed(self) -> None:
        """Raise what a task failed with in a way that nobody foresaw; forget those that are done."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            if not task.cancelled():
                task.result()

    async def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
