"""Counting without waiting: amounts are added up here, and told to Triton by a thread of its own a few times a second.

Each call of a metric is a message to Triton and back, for which a question would wait.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Final, Protocol

_EVERY_S: Final = 0.05  # far below the seconds between two scrapes


class Counter(Protocol):
    """What is needed of Triton's Metric."""

    def increment(self, value: float) -> None: ...  # noqa: D102 - Triton's


class Tally:
    """For many threads. `close` tells what is left, and nothing is told after it."""

    def __init__(self, every_s: float = _EVERY_S) -> None:
        """`every_s`: seconds for which amounts are added up before they are told."""
        self._every_s = every_s
        self._lock = threading.Lock()
        self._sums: defaultdict[int, float] = defaultdict(float)
        self._counters: dict[int, Counter] = {}
        self._some, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tell_on, name="tally", daemon=True)
        self._thread.start()

    def add(self, counter: Counter, amount: float) -> None:
        """Add to what the counter will be told."""
        with self._lock:
            self._counters[id(counter)] = counter
            self._sums[id(counter)] += amount
        self._some.set()

    def close(self) -> None:
        """Tell what is left and end."""
        self._closing.set()
        self._some.set()
        self._thread.join()
        self._tell()

    def _tell_on(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(self._every_s)
            self._some.clear()
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            sums, self._sums = self._sums, defaultdict(float)
        for key, amount in sums.items():
            self._counters[key].increment(amount)
