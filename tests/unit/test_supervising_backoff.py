"""Repairs begin at once, then ever later, and a calm while makes them begin at once again."""

from hypothesis import given
from hypothesis import strategies as st

from tritonrag.supervising.backoff import CALM_S, FIRST_S, LONGEST_S, Backoff


def test_the_first_repair_is_due_at_once_and_the_pauses_double() -> None:
    backoff, pauses = Backoff(), []
    for _ in range(9):
        pauses.append(backoff.pause_s())
        backoff.repaired(0.0)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_repair_is_due_once_its_pause_is_over() -> None:
    backoff = Backoff()
    backoff.repaired(10.0)
    assert not backoff.is_due(10.0 + FIRST_S - 0.01)
    assert backoff.is_due(10.0 + FIRST_S)


def test_a_calm_minute_is_forgiven() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.repaired(100.0)
    assert not backoff.is_due(101.0)
    assert backoff.is_due(100.0 + CALM_S + 0.01)
    assert backoff.pause_s() == 0.0


@given(st.lists(st.floats(0, 100), max_size=60))
def test_whatever_happens_a_pause_is_bounded_and_a_repair_becomes_due(gaps: list[float]) -> None:
    backoff, now_s = Backoff(), 0.0
    for gap in gaps:
        now_s += gap
        backoff.repaired(now_s)
        assert 0 < backoff.pause_s() <= LONGEST_S
        assert not backoff.is_due(now_s)
        assert backoff.is_due(now_s + LONGEST_S)
