"""What waits for one worker: bounded in number and in time, in the order of arrival.

taker                    worker, a thread of its own
offer: True, it waits    takes what waits by the batch, those first that came first
False, no room    what waited too long is handed back unworked
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_CLOSE_TIMEOUT_S: Final = 10.0
_BATCHES_KNOWN: Final = 9  # the last ones, whose median tells what a row takes: a first one that is slow must not
_FEWEST_BATCHES: Final = 3
_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`rows` may wait, and none is taken that would wait for more than `wait_s`; `batch_rows` are worked on together.

    An item has one row or more.
    """

    rows: int
    wait_s: float
    batch_rows: int

    @property
    def longest_s(self) -> float:
        """For how long what was taken may wait at most: what was expected of it need not come true."""
        return _PATIENCE * self.wait_s


class Backlog(Generic[T]):
    """Items for `work`, which is given a batch of them; `late` is given those whose time was over before their turn came.

    Neither may raise. The thread is started by the first item; `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        bounds: Bounds,
        work: Callable[[list[T]], None],
        late: Callable[[list[T]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds, self._work, self._late, self._clock = bounds, work, late, clock
        self._waiting: deque[_Waiting[T]] = deque()
        self._rows = 0
        self._rows_in_work = 0
        self._row_s: deque[float] = deque(maxlen=_BATCHES_KNOWN)  # what a row took
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on."""
        with self._changed:
            return not self._waiting and not self._rows_in_work

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        return self._rows

    @property
    def expected_wait_s(self) -> float:
        """How long a row that comes now would wait, going by what the last batches took; 0 as long as there were too few."""
        known = len(self._row_s) >= _FEWEST_BATCHES
        return (self._rows + self._rows_in_work) * median(self._row_s) if known else 0.0

    def offer(self, item: T, rows: int, wait_s: float | None = None) -> bool:
        """Let it wait, `wait_s` at most where that is given; False where there is no room, or no hope of a turn in time.

        An item of more rows than may wait at all is taken where nothing waits.
        """
        wait_s = self._bounds.longest_s if wait_s is None else min(wait_s, self._bounds.longest_s)
        with self._changed:
            if self._closed or (self._waiting and self._is_full(rows)):
                return False
            self._waiting.append(_Waiting(item=item, rows=rows, end_s=self._clock() + wait_s))
            self._rows += rows
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> bool:
        """Take nothing more, work on what waits, end the thread; False where that was not done in time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def _is_full(self, rows: int) -> bool:
        return self._rows + rows > self._bounds.rows or self.expected_wait_s > self._bounds.wait_s

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch, late = self._next()
            begin_s = self._clock()
            if late:
                self._late(late)
            if batch:
                self._work(batch)
            self._worked(self._clock() - begin_s)

    def _next(self) -> tuple[list[T], list[T]]:
        """What is to be worked on together, and what was too late for that."""
        batch: list[T] = []
        late: list[T] = []
        now_s = self._clock()
        while self._waiting and (self._waiting[0].rows + self._rows_in_work <= self._bounds.batch_rows or not batch):
            one = self._waiting.popleft()
            self._rows -= one.rows
            if one.end_s < now_s:
                late.append(one.item)
            else:
                batch.append(one.item)
                self._rows_in_work += one.rows
        return batch, late

    def _worked(self, took_s: float) -> None:
        with self._changed:
            if self._rows_in_work:
                self._row_s.append(took_s / self._rows_in_work)
            self._rows_in_work = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    rows: int
    end_s: float
