"""Everything that is counted is told, once, in few messages, and nobody waits for it."""

import threading
from dataclasses import dataclass, field

from tests.waiting import wait_until

from tritonrag_backends.models.tally import Tally


@dataclass
class Told:
    """Stands in for one of Triton's counters."""

    amounts: list[float] = field(default_factory=list)
    gate: threading.Event | None = None

    def increment(self, value: float) -> None:
        assert self.gate is None or self.gate.wait(30)
        self.amounts.append(value)


def test_amounts_are_told_added_up_and_soon() -> None:
    one, other = Told(), Told()
    tally = Tally(every_s=0.05)
    for _ in range(100):
        tally.add(one, 2)
    tally.add(other, 1)
    assert wait_until(lambda: sum(one.amounts) == 200 and other.amounts == [1])
    assert len(one.amounts) < 100
    tally.add(one, 5)
    assert wait_until(lambda: sum(one.amounts) == 205)
    tally.close()


def test_closing_tells_what_is_left() -> None:
    told = Told()
    tally = Tally(every_s=3600)
    tally.add(told, 3)
    tally.close()
    assert told.amounts == [3]


def test_nobody_waits_for_a_counter_that_is_slow() -> None:
    gate = threading.Event()
    slow = Told(gate=gate)
    tally = Tally(every_s=0)
    tally.add(slow, 1)
    for _ in range(1000):
        tally.add(slow, 1)  # returns although the first is still being told
    gate.set()
    tally.close()
    assert sum(slow.amounts) == 1001


def test_many_threads_lose_nothing() -> None:
    told = Told()
    tally = Tally(every_s=0.001)

    def count() -> None:
        for _ in range(2000):
            tally.add(told, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.close()
    assert sum(told.amounts) == 8000
