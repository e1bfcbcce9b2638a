"""A backlog is bounded, keeps the order of arrival, and gives everything that it took back: worked on or late."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import wait_until

from tritonrag_backends.backlog import Backlog, Bounds, Offer


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


def offer(waiting: Backlog[int], item: int, rows: int, wait_s: float | None = None) -> bool:
    return waiting.offer([Offer(item=item, rows=rows, wait_s=wait_s)])[0]


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_what_finds_no_room_is_told_at_once(worker: Worker) -> None:
    waiting = backlog(worker, rows=3)
    assert offer(waiting, 0, 1)
    assert worker.entered.wait(30)  # it is being worked on, and takes no room
    assert [offer(waiting, item, 1) for item in (1, 2, 3, 4)] == [True, True, True, False]
    worker.gate.set()
    assert waiting.close()
    assert worker.worked == [0, 1, 2, 3]


def test_batches_hold_as_many_rows_as_they_may(worker: Worker) -> None:
    waiting = backlog(worker, rows=100, batch_rows=4)
    assert offer(waiting, 0, 1)
    assert worker.entered.wait(30)
    for item, rows in enumerate((1, 2, 2, 9, 4, 1), start=1):
        assert offer(waiting, item, rows)
    worker.gate.set()
    assert waiting.close()
    assert worker.batches == [[0], [1, 2], [3], [4], [5], [6]]


def test_one_that_is_larger_than_the_room_is_taken_where_nothing_waits(worker: Worker) -> None:
    waiting = backlog(worker, rows=3)
    worker.gate.set()
    assert offer(waiting, 0, 50)
    assert waiting.close()
    assert worker.worked == [0]


def test_what_waited_too_long_is_handed_back_unworked(worker: Worker) -> None:
    clock = Clock()
    waiting = backlog(worker, clock=clock)
    offer(waiting, 0, 1)
    assert worker.entered.wait(30)
    offer(waiting, 1, 1, wait_s=2)
    offer(waiting, 2, 1, wait_s=99)  # no more than twice the bound, which is 10
    offer(waiting, 3, 1)
    clock.now_s = 5
    offer(waiting, 4, 1)
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
        offer(waiting, item, 2)
        assert worker.entered.wait(30)
        clock.now_s += took_s
        worker.gate.set()
        assert wait_until(lambda: waiting.idle)
    worker.gate.clear()
    worker.entered.clear()
    offer(waiting, 4, 2)
    assert worker.entered.wait(30)
    assert [offer(waiting, item, 1) for item in (5, 6)] == [True, False]  # after 8 s, after 12 s
    worker.gate.set()
    assert waiting.close()
    assert worker.worked == [0, 1, 2, 3, 4, 5]


def test_it_is_idle_once_nothing_waits_and_nothing_is_worked_on(worker: Worker) -> None:
    waiting = backlog(worker)
    assert waiting.idle
    offer(waiting, 0, 1)
    assert worker.entered.wait(30)
    assert not waiting.idle
    worker.gate.set()
    assert wait_until(lambda: waiting.idle)
    waiting.close()


def test_a_closed_one_takes_nothing(worker: Worker) -> None:
    waiting = backlog(worker)
    assert waiting.close()
    assert not offer(waiting, 0, 1)


def test_what_is_offered_together_is_worked_on_together(worker: Worker) -> None:
    worker.gate.set()
    waiting = backlog(worker, rows=100, batch_rows=4)
    assert waiting.offer(Offer(item=item, rows=1) for item in range(6)) == [True] * 6
    assert waiting.close()
    assert worker.batches == [[0, 1, 2, 3], [4, 5]]


def test_what_is_worked_on_next_takes_no_room(worker: Worker) -> None:
    worker.gate.set()
    waiting = backlog(worker, rows=3, batch_rows=4)
    assert waiting.offer(Offer(item=item, rows=1) for item in range(9)) == [True] * 7 + [False] * 2
    assert waiting.close()


def test_a_batch_that_fails_whole_does_not_end_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    worked: list[int] = []

    def work(batch: list[int]) -> None:
        worked.extend(batch)
        raise RuntimeError(f"batch {len(worked)}")

    waiting = Backlog(Bounds(rows=8, wait_s=10, batch_rows=1), work, worked.extend)
    for item in range(3):
        assert offer(waiting, item, 1)
    assert waiting.close()
    assert worked == [0, 1, 2]
    assert "batch 3" in capsys.readouterr().err
    assert waiting.idle


def test_a_taker_may_wait_until_there_is_room(worker: Worker) -> None:
    waiting = backlog(worker, rows=100, batch_rows=4)
    offer(waiting, 0, 1)
    assert worker.entered.wait(30)
    waiting.offer(Offer(item=item, rows=1) for item in range(1, 9))
    waiting.wait_below(8, timeout_s=0.01)
    assert waiting.rows == 8  # the time was over
    worker.gate.set()
    waiting.wait_below(8, timeout_s=30)
    assert waiting.rows < 8
    assert waiting.close()


def test_batches_of_few_rows_tell_less_of_what_a_row_takes(worker: Worker) -> None:
    clock = Clock()
    waiting = backlog(worker, rows=100, batch_rows=8, clock=clock)
    for item, rows in enumerate((8, 1, 1, 1)):  # each takes 4 s
        worker.gate.clear()
        worker.entered.clear()
        offer(waiting, item, rows)
        assert worker.entered.wait(30)
        clock.now_s += 4
        worker.gate.set()
        assert wait_until(lambda: waiting.idle)
    worker.gate.clear()
    worker.entered.clear()
    offer(waiting, 4, 8)
    assert worker.entered.wait(30)
    offer(waiting, 5, 1)
    assert waiting.expected_wait_s == pytest.approx(4.5)
    worker.gate.set()
    assert waiting.close()


@given(rows=st.lists(st.integers(1, 6), max_size=40), room=st.integers(1, 20), batch_rows=st.integers(1, 8))
def test_all_that_was_taken_comes_out_once_and_in_order(rows: list[int], room: int, batch_rows: int) -> None:
    worker = Worker()
    worker.gate.set()
    waiting = backlog(worker, rows=room, batch_rows=batch_rows)
    taken = [item for item, count in enumerate(rows) if offer(waiting, item, count)]
    assert waiting.close()
    assert worker.worked == taken
    assert all(len(batch) == 1 or sum(rows[item] for item in batch) <= batch_rows for batch in worker.batches)
