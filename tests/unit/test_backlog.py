"""A backlog is bounded, keeps the order of arrival, and gives everything that it took back: worked on or late."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import wait_until

from tritonrag_backends.backlog import Backlog, Bounds


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Worker:
    """Writes down what it is given; `gate` holds it up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.late: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def work(self, batch: list[int]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(batch)

    def too_late(self, items: list[int]) -> None:
        self.late += items

    @property
    def worked(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


def backlog(
    worker: Worker, *, rows: int = 8, batch_rows: int = 4, clock: Callable[[], float] | None = None
) -> Backlog[int]:
    bounds = Bounds(rows=rows, wait_s=10, batch_rows=batch_rows)
    return Backlog(bounds, worker.work, worker.too_late, **({} if clock is None else {"clock": clock}))


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_what_finds_no_room_is_told_at_once(worker: Worker) -> None:
    waiting = backlog(worker, rows=3)
    assert waiting.offer(0, 1)
    assert worker.entered.wait(30)  # it is being worked on, and takes no room
    assert [waiting.offer(item, 1) for item in (1, 2, 3, 4)] == [True, True, True, False]
    worker.gate.set()
    assert waiting.close()
    assert worker.worked == [0, 1, 2, 3]


def test_batches_hold_as_many_rows_as_they_may(worker: Worker) -> None:
    waiting = backlog(worker, rows=100, batch_rows=4)
    assert waiting.offer(0, 1)
    assert worker.entered.wait(30)
    for item, rows in enumerate((1, 2, 2, 9, 4, 1), start=1):
        assert waiting.offer(item, rows)
    worker.gate.set()
    assert waiting.close()
    assert worker.batches == [[0], [1, 2], [3], [4], [5], [6]]


def test_one_that_is_larger_than_the_room_is_taken_where_nothing_waits(worker: Worker) -> None:
    waiting = backlog(worker, rows=3)
    worker.gate.set()
    assert waiting.offer(0, 50)
    assert waiting.close()
    assert worker.worked == [0]


def test_what_waited_too_long_is_handed_back_unworked(worker: Worker) -> None:
    clock = Clock()
    waiting = backlog(worker, clock=clock)
    waiting.offer(0, 1)
    assert worker.entered.wait(30)
    waiting.offer(1, 1, wait_s=2)
    waiting.offer(2, 1, wait_s=99)  # no more than twice the bound, which is 10
    waiting.offer(3, 1)
    clock.now_s = 5
    waiting.offer(4, 1)
    clock.now_s = 21
    worker.gate.set()
    assert waiting.close()
    assert (worker.worked, worker.late) == ([0, 4], [1, 2, 3])


def test_what_would_wait_too_long_is_told_at_once(worker: Worker) -> None:
    clock = Clock()
    waiting = backlog(worker, rows=100, batch_rows=2, clock=clock)
    for item, took_s in enumerate((90, 8, 8, 8)):  # a row takes 4 s, although the first one took more
        worker.gate.clear()
        worker.entered.clear()
        waiting.offer(item, 2)
        assert worker.entered.wait(30)
        clock.now_s += took_s
        worker.gate.set()
        assert wait_until(lambda: waiting.idle)
    worker.gate.clear()
    worker.entered.clear()
    waiting.offer(4, 2)
    assert worker.entered.wait(30)
    assert [waiting.offer(item, 1) for item in (5, 6)] == [True, False]  # after 8 s, after 12 s
    worker.gate.set()
    assert waiting.close()
    assert worker.worked == [0, 1, 2, 3, 4, 5]


def test_it_is_idle_once_nothing_waits_and_nothing_is_worked_on(worker: Worker) -> None:
    waiting = backlog(worker)
    assert waiting.idle
    waiting.offer(0, 1)
    assert worker.entered.wait(30)
    assert not waiting.idle
    worker.gate.set()
    assert wait_until(lambda: waiting.idle)
    waiting.close()


def test_a_closed_one_takes_nothing(worker: Worker) -> None:
    waiting = backlog(worker)
    assert waiting.close()
    assert not waiting.offer(0, 1)


@given(rows=st.lists(st.integers(1, 6), max_size=40), room=st.integers(1, 20), batch_rows=st.integers(1, 8))
def test_all_that_was_taken_comes_out_once_and_in_order(rows: list[int], room: int, batch_rows: int) -> None:
    worker = Worker()
    worker.gate.set()
    waiting = backlog(worker, rows=room, batch_rows=batch_rows)
    taken = [item for item, count in enumerate(rows) if waiting.offer(item, count)]
    assert waiting.close()
    assert worker.worked == taken
    assert all(len(batch) == 1 or sum(rows[item] for item in batch) <= batch_rows for batch in worker.batches)
