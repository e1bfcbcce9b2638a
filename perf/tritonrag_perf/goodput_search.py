"""The highest rate that holds: raise it until it does not, then halve what is left between the two. Knows nothing of requests.

What is measured is noisy, and near the edge one run holds and the next does not: a rate holds where most of `repeats` runs do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from tritonrag_client.errors import BadRequestError

End = Literal["found", "most", "least"]


class Run(Protocol):
    """One measurement at one rate."""

    @property
    def holds(self) -> bool:
        """Whether every limit was kept."""
        ...


R = TypeVar("R", bound=Run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where to search, in requests a second, and how closely: `precision` 0.1 ends with a step of a tenth between yes and no."""

    start: float
    least: float = 0.5
    most: float = 2000.0
    growth: float = 2.0
    precision: float = 0.1
    repeats: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.start <= self.most < math.inf:
            raise BadRequestError(
                f"the rates are least {self.least:g}, start {self.start:g}, most {self.most:g}; give them in that order, above 0"
            )
        if not 1.1 <= self.growth <= 10:  # noqa: PLR2004 - less takes ages, more leaves all to the halving
            raise BadRequestError(f"growth is {self.growth:g}; give 1.1 to 10")
        if not 0.01 <= self.precision <= 1:  # noqa: PLR2004 - a finer answer than noise allows is none
            raise BadRequestError(f"precision is {self.precision:g}; give 0.01 to 1")
        if self.repeats < 1 or self.repeats % 2 == 0:
            raise BadRequestError(f"repeats is {self.repeats}; give an odd number, so that there is a majority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[R]):
    """One rate, and its runs: as many as it took to know the majority."""

    rate_per_s: float
    holds: bool
    runs: tuple[R, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[R]):
    """The steps in the order in which they were taken.

    `highest` is the highest rate that held below the lowest that did not; None where none did ("least"). `ended` "most": the
    highest rate allowed held too, so the truth may be higher.
    """

    steps: tuple[Step[R], ...]
    highest: Step[R] | None
    ended: End


def find_highest(measure: Callable[[float], R], within: Range) -> Found[R]:
    """Search for it, from `within.start` upwards, or downwards where that does not hold."""
    search = _Searching(measure, within)
    return search.run()


class _Searching(Generic[R]):
    def __init__(self, measure: Callable[[float], R], within: Range) -> None:
        self._measure = measure
        self._within = within
        self._steps: list[Step[R]] = []

    def run(self) -> Found[R]:
        low, high = self._bracket()
        if low is None:
            return Found(steps=tuple(self._steps), highest=None, ended="least")
        if high is None:
            return Found(steps=tuple(self._steps), highest=low, ended="most")
        while high.rate_per_s > low.rate_per_s * (1 + self._within.precision):
            middle = self._step(math.sqrt(low.rate_per_s * high.rate_per_s))
            low, high = (middle, high) if middle.holds else (low, middle)
        return Found(steps=tuple(self._steps), highest=low, ended="found")

    def _bracket(self) -> tuple[Step[R] | None, Step[R] | None]:
        """The highest rate seen to hold and the lowest seen not to; None where even the last one allowed did not tell."""
        within, first = self._within, self._step(self._within.start)
        last = first
        while last.holds == first.holds:
            wanted = last.rate_per_s * within.growth if first.holds else last.rate_per_s / within.growth
            rate = min(max(wanted, within.least), within.most)
            if rate == last.rate_per_s:
                return (last, None) if first.holds else (None, last)
            before, last = last, self._step(rate)
        return (before, last) if first.holds else (last, before)

    def _step(self, rate_per_s: float) -> Step[R]:
        """Run until the majority is known."""
        needed = self._within.repeats // 2 + 1
        runs: list[R] = []
        held = 0
        while max(held, len(runs) - held) < needed:
            runs.append(self._measure(rate_per_s))
            held += runs[-1].holds
        step = Step(rate_per_s=rate_per_s, holds=held >= needed, runs=tuple(runs))
        self._steps.append(step)
        return step
