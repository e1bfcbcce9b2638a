"""The figures of a sweep: what each round measured, and the median and range over rounds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.scrape_use import Use
from tritonrag_perf.server_time import StageTime
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measurement of one load, where the server spent the time of it, and what it cost.

    Of the stages the load's model is the first.
    """

    load: Load
    measurement: Measurement
    stages: tuple[StageTime, ...]
    use: Use | None = None  # None in records from before there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A measurement that came to nothing, and why."""

    load: Load
    reason: str

    def __str__(self) -> str:
        return f"{self.load}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A sweep. `questions` says in words what was asked, `command` how to do it again; `failures` are in no other figure."""

    date: str
    machine: Machine
    server_version: str
    perf_analyzer_version: str
    command: str
    questions: str
    stream: bool
    rounds: tuple[Round, ...]
    failures: tuple[Failure, ...] = ()

    def loads(self) -> tuple[Load, ...]:
        """The loads, in the order in which they were first measured."""
        return tuple(dict.fromkeys(r.load for r in self.rounds))

    def of(self, load: Load) -> tuple[Round, ...]:
        """The rounds of one load."""
        return tuple(r for r in self.rounds if r.load == load)

    def spread(self, load: Load, figure: Callable[[Measurement], float]) -> Spread:
        """One figure of one load over its rounds."""
        return Spread.of(figure(r.measurement) for r in self.of(load))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)
