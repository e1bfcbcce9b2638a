"""A circuit breaker: what failed several times in a row is left alone for a while, then tried by one request at a time."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from tritonrag_client.errors import UnavailableError

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Counts failures in a row of what `name` calls; lives in one event loop.

    Closed: every attempt is let through. After `failures` in a row it opens: for `open_s` seconds none is. Then it is
    half-open: one attempt at a time is let through as a probe, and its success closes the breaker, its failure opens it again.
    """

    def __init__(self, name: str, *, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._turn = 0  # counts openings and closings: what an attempt of an earlier turn tells is out of date

    @property
    def state(self) -> State:
        """What becomes of an attempt now, but for a probe that is under way."""
        if self._failures < self._limit:
            return "closed"
        return "open" if self._left_s() > 0 else "half-open"

    def admit(self) -> "Attempt":
        """Begin an attempt; use it in a `with` statement. Raises UnavailableError at once while there should be none."""
        state = self.state
        if state == "open":
            raise UnavailableError(
                f"{self._name} is left alone for another {self._left_s():.1f} s after {self._failures} failures in a row;"
                " try again then"
            )
        if state == "half-open":
            if self._probing:
                raise UnavailableError(
                    f"{self._name} failed {self._failures} times in a row, and another request is trying it now; try again soon"
                )
            self._probing = True
        return Attempt(self, self._turn, probe=state == "half-open")

    def _left_s(self) -> float:
        return self._opened_at + self._open_s - self._clock()

    def _answers(self, attempt: "Attempt") -> None:
        if attempt.probe and attempt.turn == self._turn:
            self._turn += 1
            attempt.turn, attempt.probe = self._turn, False
            self._probing = False
            self._failures = self._limit - 1  # closed, but only just: the next failure in a row opens it again

    def _ended(self, attempt: "Attempt", *, success: bool | None) -> None:
        if attempt.turn != self._turn:
            return
        if attempt.probe:
            self._probing = False
        if success:
            self._turn += attempt.probe
            self._failures = 0
        elif success is False:
            self._failures = min(self._failures + 1, self._limit)
            if self._failures == self._limit:
                self._turn += 1
                self._opened_at = self._clock()


class Attempt:
    """One attempt that a breaker let through. Ends with the first of `succeeded`, `failed` and the end of its `with` block.

    An attempt that ends with neither, because it was cancelled or its request was bad, counts as neither.
    """

    def __init__(self, breaker: CircuitBreaker, turn: int, *, probe: bool) -> None:
        self._breaker = breaker
        self._over = False
        self.turn = turn
        self.probe = probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """What leaving the `with` block does, for those who can't use one."""
        self._end(success=None)

    def answers(self) -> None:
        """It began to answer, which may go on for long: a probe is over with that, and others are let through.

        The failures of before are forgotten only by `succeeded`.
        """
        if not self._over:
            self._breaker._answers(self)  # noqa: SLF001 - the two are one thing

    def succeeded(self) -> None:
        """It went well."""
        self._end(success=True)

    def failed(self) -> None:
        """What was tried is at fault."""
        self._end(success=False)

    def _end(self, *, success: bool | None) -> None:
        if not self._over:
            self._over = True
            self._breaker._ended(self, success=success)  # noqa: SLF001 - the two are one thing
