"""What fails again and again is left alone for a while, and then tried by one request at a time."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tritonrag_backends.generation.breaker import Attempt, CircuitBreaker
from tritonrag_client.errors import UnavailableError

OPEN_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker_of(clock: Clock, failures: int = 3) -> CircuitBreaker:
    return CircuitBreaker("the engine", failures=failures, open_s=OPEN_S, clock=clock)


def fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with breaker.admit() as attempt:
            attempt.failed()


def test_it_opens_after_that_many_failures_in_a_row_and_tells_for_how_long() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    fail(breaker, 3)
    clock.now += 6.8
    with pytest.raises(
        UnavailableError, match=r"the engine is left alone for another 3\.2 s after 3 failures in a row"
    ):
        breaker.admit()


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = breaker_of(Clock())
    fail(breaker, 2)
    breaker.admit().succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_what_is_cancelled_counts_neither_way() -> None:
    breaker = breaker_of(Clock())
    fail(breaker, 2)
    for _ in range(5):
        with breaker.admit():
            pass
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


def half_open(clock: Clock) -> CircuitBreaker:
    breaker = breaker_of(clock)
    fail(breaker, 3)
    clock.now += OPEN_S
    assert breaker.state == "half-open"
    return breaker


def test_one_probe_at_a_time() -> None:
    breaker = half_open(Clock())
    probe = breaker.admit()
    with pytest.raises(UnavailableError, match="another request is trying it now"):
        breaker.admit()
    probe.end()
    assert breaker.admit().probe


def test_a_probes_success_closes_it() -> None:
    breaker = half_open(Clock())
    breaker.admit().succeeded()
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_probes_failure_opens_it_for_as_long_again() -> None:
    clock = Clock()
    breaker = half_open(clock)
    fail(breaker, 1)
    clock.now += OPEN_S - 0.1
    assert breaker.state == "open"
    clock.now += 0.1
    assert breaker.state == "half-open"


def test_a_probe_that_begins_to_answer_lets_others_in() -> None:
    breaker = half_open(Clock())
    probe = breaker.admit()
    probe.answers()
    breaker.admit().end()
    assert breaker.state == "closed"


def test_a_probe_that_breaks_off_after_it_began_opens_it_again() -> None:
    breaker = half_open(Clock())
    probe = breaker.admit()
    probe.answers()
    probe.failed()
    assert breaker.state == "open"


def test_answers_that_began_and_broke_off_are_failures_in_a_row() -> None:
    breaker = breaker_of(Clock())
    for _ in range(3):
        attempt = breaker.admit()
        attempt.answers()
        attempt.failed()
    assert breaker.state == "open"


def test_what_began_before_it_opened_tells_nothing_later() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    slow, slower = breaker.admit(), breaker.admit()
    fail(breaker, 3)
    slow.succeeded()
    assert breaker.state == "open"
    clock.now += OPEN_S - 1
    slower.failed()
    clock.now += 1
    assert breaker.state == "half-open"


def test_only_the_first_end_of_an_attempt_counts() -> None:
    breaker = breaker_of(Clock(), failures=2)
    with breaker.admit() as attempt:
        attempt.failed()
        attempt.failed()
        attempt.succeeded()
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"


class Anything(RuleBasedStateMachine):
    """Whatever happens in whatever order, an open breaker lets nothing through, and none stays shut for good."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = breaker_of(self.clock)
        self.under_way: list[Attempt] = []

    @rule()
    def admit(self) -> None:
        state = self.breaker.state
        try:
            attempt = self.breaker.admit()
        except UnavailableError:
            assert state != "closed"
            return
        assert state != "open"
        assert attempt.probe == (state == "half-open")
        self.under_way.append(attempt)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "end", "answers"]))
    def end(self, data: st.DataObject, end: str) -> None:
        attempt = self.under_way[data.draw(st.integers(0, len(self.under_way) - 1))]
        getattr(attempt, end)()
        if end != "answers":
            self.under_way.remove(attempt)

    @rule(seconds=st.sampled_from([0.1, 5.0, OPEN_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def at_most_one_probe(self) -> None:
        assert sum(attempt.probe and attempt.turn == self.breaker._turn for attempt in self.under_way) <= 1

    def teardown(self) -> None:
        for attempt in self.under_way:
            attempt.end()
        self.clock.now += OPEN_S
        self.breaker.admit().succeeded()
        assert self.breaker.state == "closed"


TestAnything = Anything.TestCase
