"""How long something takes, again and again, and how far the times lie apart."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, least and greatest of repeats."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values), repeats=len(values))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a record, to six digits."""
        parts = {"median": self.median, "low": self.low, "high": self.high}
        return {name: float(f"{value:.6g}") for name, value in parts.items()} | {"repeats": self.repeats}


def seconds_a_call(call: Callable[[], object], *, repeats: int, least_s: float, warm_ups: int = 2) -> Spread:
    """Seconds of one call: each repeat calls it for at least `least_s` and takes the mean.

    `call` must return only when its work is done: a GPU's calls return before. The number of calls a repeat is found by the
    warm-up, so that no clock is read in between.
    """
    for _ in range(warm_ups):
        call()
    calls = 1
    while (took_s := _time(call, calls)) < least_s / 4:
        calls *= 2
    calls = max(1, round(calls * least_s / max(took_s, 1e-9)))
    return Spread.of([_time(call, calls) / calls for _ in range(repeats)])


def rate(units: float, seconds: Spread) -> Spread:
    """Units a second, where one call does `units` of work."""
    return Spread(
        median=units / seconds.median, low=units / seconds.high, high=units / seconds.low, repeats=seconds.repeats
    )


def _time(call: Callable[[], object], calls: int) -> float:
    began_s = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - began_s
