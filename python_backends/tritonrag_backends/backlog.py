"""What waits for one worker: bounded in number and in time, in the order of arrival.

taker                    worker, a thread of its own
offer: True, it waits    takes what waits by the batch, those first that came first
False, no room    what waited too long is handed back unworked
"""

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Generic[T]):
    """An item of `rows` that may wait for `wait_s`, or as long as anything may."""

    item: T
    rows: int
    wait_s: float | None = None


class Backlog(Generic[T]):
    """Items for `work`, which is given a batch of them; `late` is given those whose time was over before their turn came.

    Neither may raise. `clock` gives monotonic seconds.
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
        self._row_s = _RowTime()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)
        self._thread.start()

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
        return (self._rows + self._rows_in_work) * self._row_s.typical

    def offer(self, offers: Iterable[Offer[T]]) -> list[bool]:
        """Let them wait, the worker sees them all at once; False for each that finds no room, or no hope of a turn in time.

        An item of more rows than may wait at all is taken where nothing waits.
        """
        with self._changed:
            taken = [self._take(offer) for offer in offers]
            self._changed.notify_all()
        return taken

    def wait_below(self, rows: int, timeout_s: float) -> None:
        """Return once fewer rows wait, or after the time."""
        with self._changed:
            self._changed.wait_for(lambda: self._rows < rows or self._closed, timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> bool:
        """Take nothing more, work on what waits, end the thread; False where that was not done in time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _take(self, offer: Offer[T]) -> bool:
        if self._closed or (self._waiting and self._is_full(offer.rows)):
            return False
        longest_s = self._bounds.longest_s
        wait_s = longest_s if offer.wait_s is None else min(offer.wait_s, longest_s)
        self._waiting.append(_Waiting(item=offer.item, rows=offer.rows, end_s=self._clock() + wait_s))
        self._rows += offer.rows
        return True

    def _is_full(self, rows: int) -> bool:
        at_once = 0 if self._rows_in_work else self._bounds.batch_rows  # these are worked on next and don't wait
        return self._rows + rows > self._bounds.rows + at_once or self.expected_wait_s > self._bounds.wait_s

    def _run(self) -> None:
        """What `work` raises is told on stderr, as of any thread; but this one goes on, for others wait."""
        goes_on = True
        while goes_on:
            try:
                goes_on = self._work_once()
            except Exception:  # noqa: BLE001 - the thread's edge
                traceback.print_exc()

    def _work_once(self) -> bool:
        """Wait for a batch and work on it; False where there will be none. It keeps nothing of a batch that is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return False
            batch, late = self._next()
            self._changed.notify_all()  # there is room
        begin_s = self._clock()
        try:
            if late:
                self._late(late)
            if batch:
                self._work(batch)
        finally:
            self._worked(self._clock() - begin_s)
        return True

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
                self._row_s.add(took_s, self._rows_in_work)
            self._rows_in_work = 0


class _RowTime:
    """What a row takes, going by the last batches; `typical` is 0 as long as there were too few."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int]] = deque(maxlen=_BATCHES_KNOWN)
        self.typical = 0.0

    def add(self, took_s: float, rows: int) -> None:
        """Count a batch. The median is that of rows: a batch of one tells less of a full one than the other way round."""
        self._batches.append((took_s / rows, rows))
        if len(self._batches) >= _FEWEST_BATCHES:
            by_time = sorted(self._batches)
            seen = accumulate(rows for _, rows in by_time)
            half = sum(rows for _, rows in by_time) / 2
            self.typical = next(row_s for (row_s, _), rows in zip(by_time, seen, strict=True) if rows >= half)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    rows: int
    end_s: float
