"""An answer begins at once, loses nothing, and has a bounded number of responses however long it gets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.engine import Delta, Usage
from tritonrag_backends.generation.gathering import FREE, LONGEST_PAUSE_S, Gathering, pause_s

MOST_RESPONSES = {10: 105, 60: 150, 300: 210}  # by the seconds that an answer takes


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def gathered(clock: Clock, deltas: list[tuple[float, Delta]]) -> list[tuple[float, Delta]]:
    """What is passed on and when, of deltas that come so many seconds after each other."""
    gathering, passed = Gathering(clock), []
    for after_s, delta in deltas:
        comes_s = clock.now_s + after_s
        if gathering.due_s <= comes_s:
            clock.now_s = max(clock.now_s, gathering.due_s)
            passed.append((clock.now_s, gathering.take()))
        clock.now_s = comes_s
        if (now := gathering.add(delta)) is not None:
            passed.append((clock.now_s, now))
    assert not gathering.holds
    return passed


def words(count: int, after_s: float) -> list[tuple[float, Delta]]:
    return [
        (after_s, Delta(text=f"w{number} ", finish_reason="stop" if number == count - 1 else None))
        for number in range(count)
    ]


def test_the_first_responses_pass_as_they_come() -> None:
    deltas = words(FREE, 0.0)
    assert [delta for _, delta in gathered(Clock(), deltas)] == [delta for _, delta in deltas]


@pytest.mark.parametrize("per_s", [10, 100, 1000])
@pytest.mark.parametrize("answer_s", MOST_RESPONSES)
def test_however_fast_an_engine_writes_an_answer_has_so_many_responses(answer_s: int, per_s: int) -> None:
    clock = Clock()
    assert len(gathered(clock, words(answer_s * per_s, 1 / per_s))) <= MOST_RESPONSES[answer_s]
    assert clock.now_s < answer_s + 1


def test_a_reader_waits_for_a_piece_no_longer_than_a_small_part_of_what_he_has_read() -> None:
    times_s = [at_s for at_s, _ in gathered(Clock(), words(6000, 0.01))]
    assert max(later - at_s for at_s, later in pairwise(times_s)) < 2.7
    assert all(later - at_s <= at_s / 20 + 0.05 for at_s, later in pairwise(times_s))


def test_what_is_put_together_keeps_all_that_its_parts_said() -> None:
    clock, usage = Clock(), Usage(prompt_tokens=1, completion_tokens=2)
    gathering = Gathering(clock)
    for _ in range(FREE):
        gathering.add(Delta(text=""))
    assert gathering.add(Delta(text="a", degraded="slow")) is None
    assert gathering.due_s == clock.now_s + pause_s(FREE)
    assert gathering.add(Delta(text="b")) is None
    last = gathering.add(Delta(text="c", finish_reason="length", degraded="short", usage=usage))
    assert last == Delta(text="abc", finish_reason="length", degraded="slow; short", usage=usage)


@given(st.lists(st.tuples(st.floats(0, 2), st.text(max_size=3)), min_size=1, max_size=200))
def test_nothing_is_lost_turned_round_or_held_for_longer_than_a_pause(parts: list[tuple[float, str]]) -> None:
    *rest, (after_s, text) = parts
    deltas = [(after_s, Delta(text=text)) for after_s, text in rest]
    passed = gathered(Clock(), [*deltas, (after_s, Delta(text=text, finish_reason="stop"))])
    assert "".join(delta.text for _, delta in passed) == "".join(text for _, text in parts)
    assert [delta.finish_reason for _, delta in passed] == [None] * (len(passed) - 1) + ["stop"]
    times_s = [0.0, *(at_s for at_s, _ in passed)]
    came_s = 0.0
    for after_s, _ in parts:
        came_s += after_s
        assert min(at_s for at_s in times_s if at_s >= came_s - 1e-9) <= came_s + LONGEST_PAUSE_S + 1e-9
