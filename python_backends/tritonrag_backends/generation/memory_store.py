"""Answers kept in this process: the least recently used ones go first."""

import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.generation.known_answer import KnownAnswer

# What an entry takes besides its texts (measured with tracemalloc: 353).
_ENTRY_BYTES: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    answer: KnownAnswer
    bytes: int
    expires_s: float


class MemoryStore:
    """Implements `AnswerStore`. Holds at most `max_bytes`, each answer for `ttl_s` seconds; lives in one event loop."""

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._ttl_s, self._clock = max_bytes, ttl_s, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.bytes = 0
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> KnownAnswer | None:
        """The answer, which counts as used now; None where there is none or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_s <= self._clock():
            self._drop(key)
            self.counts["expired"] += 1
            return None
        self._entries.move_to_end(key)
        return entry.answer

    async def put(self, key: str, answer: KnownAnswer) -> None:
        """Keep it; others make room. One that is larger than all the room is not kept."""
        self._drop(key)
        size = _ENTRY_BYTES + sys.getsizeof(key) + sys.getsizeof(answer.text)
        if size > self._max_bytes:
            self.counts["too_large"] += 1
            return
        self._entries[key] = _Entry(answer=answer, bytes=size, expires_s=self._clock() + self._ttl_s)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self.counts["evicted"] += 1

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: str) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.bytes -= entry.bytes
