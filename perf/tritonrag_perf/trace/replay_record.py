"""What a replay came to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from tritonrag_perf.machine import Machine
from tritonrag_perf.trace.replaying import Outcome
from tritonrag_perf.trace.schedule import Due, Window

LATE_MS: Final = 10.0  # a question that is sent so much after it was due was sent late
_OFF: Final = 'outcome="off"'  # no cache was asked
CACHES: Final = {  # the series whose growth tells what was known already, and how they name a hit
    "answers": ("tritonrag_answer_cache_total", ('outcome="hit"', 'outcome="shared"')),
    "searches": ("tritonrag_retriever_searches_total", ('cache="hit"',)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Of milliseconds."""

    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """None where there is no value."""
        array = np.fromiter(values, np.float64)
        if not array.size:
            return None
        p50, p90, p99 = np.percentile(array, (50, 90, 99))
        return cls(p50=float(p50), p90=float(p90), p99=float(p99), most=float(array.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was replayed, in figures. `repeats` were asked earlier in the replay; of `unequal` and `alike` see Texts.

    `shared_passages` of the trace had to share one of the index.
    """

    requests: int
    repeats: int
    unequal: int
    alike: int
    shared_passages: int
    window: Window

    @classmethod
    def of(cls, due: Sequence[Due], window: Window, *, unequal: int, alike: int, shared_passages: int) -> Self:
        """Count what is due."""
        return cls(
            requests=len(due),
            repeats=len(due) - len({each.request.question.id for each in due}),
            unequal=unequal,
            alike=alike,
            shared_passages=shared_passages,
            window=window,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """Of `asked` questions that reached a cache's stage, `hits` were known there already."""

    hits: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """One replay. Latencies are of answers: `latency` and `first` from when a question was due, `service` from when it was sent.

    `found` of `aimed` answers came with a passage that the question was made from. `caches` None: no metrics were read.
    """

    date: str
    machine: Machine
    command: str
    model: str
    asked: Asked
    answers: int
    failures: dict[str, int]
    degraded: int
    wall_s: float
    latency: Quantiles | None
    first: Quantiles | None
    service: Quantiles | None
    late: int
    latest_ms: float
    found: int
    aimed: int
    caches: dict[str, CacheUse] | None

    @property
    def offered_per_s(self) -> float:
        """Questions a second that were due."""
        return self.asked.requests / self.asked.window.seconds

    @property
    def answers_per_s(self) -> float:
        """Answers a second, to the end of the last one."""
        return self.answers / self.wall_s if self.wall_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        rates = {"offered_per_s": self.offered_per_s, "answers_per_s": self.answers_per_s}
        return {**asdict(self), **rates}


def summarise_replay(
    outcomes: Sequence[Outcome],
    *,
    date: str,
    machine: Machine,
    command: str,
    model: str,
    asked: Asked,
    caches: dict[str, CacheUse] | None,
) -> ReplayRecord:
    """The figures of at least one outcome."""
    answered = [outcome for outcome in outcomes if not outcome.code]
    return ReplayRecord(
        date=date,
        machine=machine,
        command=command,
        model=model,
        asked=asked,
        answers=len(answered),
        failures=dict(sorted(Counter(outcome.code for outcome in outcomes if outcome.code).items())),
        degraded=sum(outcome.degraded for outcome in answered),
        wall_s=max(*(outcome.done_s for outcome in outcomes), asked.window.seconds),
        latency=Quantiles.of(outcome.latency_ms for outcome in answered),
        first=Quantiles.of(first for outcome in answered if (first := outcome.first_ms) is not None),
        service=Quantiles.of(outcome.service_ms for outcome in answered),
        late=sum(outcome.late_ms > LATE_MS for outcome in outcomes),
        latest_ms=max(outcome.late_ms for outcome in outcomes),
        found=sum(outcome.found is True for outcome in answered),
        aimed=sum(outcome.found is not None for outcome in answered),
        caches=caches,
    )


def cache_use(grown: Mapping[str, float]) -> dict[str, CacheUse]:
    """What the caches did, from what the server's counters grew by, by series as PromQL writes it."""
    use = {}
    for name, (metric, hits) in CACHES.items():
        series = {key: value for key, value in grown.items() if key.partition("{")[0] == metric and _OFF not in key}
        known = sum(value for key, value in series.items() if any(hit in key for hit in hits))
        use[name] = CacheUse(hits=round(known), asked=round(sum(series.values())))
    return use
