"""What one run of mixed traffic came to, and which limits it kept."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_perf.goodput_traffic import STREAMING, Operation, Sample

_FEWEST: Final = 10  # of an operation, below which a tail says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run must keep. Percentiles are the 99th, in milliseconds from when a request was due; None is no limit.

    `search_ms` is for searches, `answer_ms` for answers to their end, `first_token_ms` for streamed ones. `errors` is a share of
    all requests. `late_ms` is how late the client may send: beyond that it is the client that is measured.
    """

    search_ms: float | None = 250.0
    answer_ms: float | None = None
    first_token_ms: float | None = 1000.0
    errors: float = 0.01
    late_ms: float = 50.0

    def __post_init__(self) -> None:
        for name in ("search_ms", "answer_ms", "first_token_ms", "late_ms"):
            value: float | None = getattr(self, name)
            if value is not None and not value > 0:
                raise BadRequestError(f"{name} is {value:g}; give milliseconds above 0")
        if not 0 <= self.errors < 1:
            raise BadRequestError(f"errors is {self.errors:g}; give a share of 0 or more and below 1")

    def kept_by(self, sample: Sample) -> bool:
        """Whether one request met every limit that is for it: what counts as goodput."""
        bounds = [
            (sample.latency_ms, self.latency_ms(sample.operation)),
            (sample.first_ms, self.first_ms(sample.operation)),
        ]
        return not sample.code and all(value is None or most is None or value <= most for value, most in bounds)

    def latency_ms(self, operation: Operation) -> float | None:
        """The limit on an operation's end; one that is left early has none."""
        return {"search": self.search_ms, "ask": self.answer_ms, "stream": self.answer_ms, "cancel": None}[operation]

    def first_ms(self, operation: Operation) -> float | None:
        """The limit on an operation's first token."""
        return self.first_token_ms if operation in STREAMING else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """One operation: how many succeeded, and how long they took, in milliseconds; None where there is nothing to tell."""

    operation: Operation
    requests: int
    succeeded: int
    p50_ms: float | None
    p99_ms: float | None
    first_p50_ms: float | None
    first_p99_ms: float | None

    @classmethod
    def of(cls, operation: Operation, samples: Sequence[Sample]) -> "Tail":
        """From the samples of that operation."""
        good = [sample for sample in samples if not sample.code]
        first = [sample.first_ms for sample in good if sample.first_ms is not None]
        latency = [sample.latency_ms for sample in good]
        return cls(
            operation=operation,
            requests=len(samples),
            succeeded=len(good),
            p50_ms=_percentile(latency, 50),
            p99_ms=_percentile(latency, 99),
            first_p50_ms=_percentile(first, 50),
            first_p99_ms=_percentile(first, 99),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRun:
    """One run. `offered_per_s` is what came due, `goodput_per_s` what of it met every limit; `broken` are the limits not kept."""

    rate_per_s: float
    seconds: float
    offered_per_s: float
    goodput_per_s: float
    tails: tuple[Tail, ...]
    errors: dict[str, int]
    late_p99_ms: float
    client_cores: float
    broken: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every limit was kept."""
        return not self.broken


def sum_up(
    samples: Iterable[Sample],
    limits: Limits,
    *,
    rate_per_s: float,
    warm_up_s: float,
    seconds: float,
    client_cores: float,
) -> TrafficRun:
    """Judge a run by the requests that came due in `seconds` after the warm-up. Raises InternalError where there is none."""
    counted = [sample for sample in samples if warm_up_s <= sample.due_s < warm_up_s + seconds]
    if not counted:
        raise InternalError(f"no request came due in {seconds:g} s at {rate_per_s:g} a second; measure for longer")
    operations = dict.fromkeys(sample.operation for sample in counted)
    tails = tuple(Tail.of(one, [sample for sample in counted if sample.operation == one]) for one in sorted(operations))
    errors = Counter(sample.code for sample in counted if sample.code)
    late_ms = _percentile([sample.late_ms for sample in counted], 99) or 0.0
    return TrafficRun(
        rate_per_s=rate_per_s,
        seconds=seconds,
        offered_per_s=len(counted) / seconds,
        goodput_per_s=sum(map(limits.kept_by, counted)) / seconds,
        tails=tails,
        errors=dict(sorted(errors.items())),
        late_p99_ms=late_ms,
        client_cores=client_cores,
        broken=(*_broken_tails(tails, limits), *_broken_shares(len(counted), errors, late_ms, limits)),
    )


def _broken_tails(tails: Sequence[Tail], limits: Limits) -> list[str]:
    broken = []
    for tail in tails:
        pairs = (
            ("p99", tail.p99_ms, limits.latency_ms(tail.operation)),
            ("first token p99", tail.first_p99_ms, limits.first_ms(tail.operation)),
        )
        broken += [
            f"{tail.operation} {name} {value:,.0f} ms > {most:g} ms"
            for name, value, most in pairs
            if value is not None and most is not None and value > most
        ]
    return broken


def _broken_shares(requests: int, errors: Counter[str], late_ms: float, limits: Limits) -> list[str]:
    broken = []
    if errors.total() > limits.errors * requests:
        codes = ", ".join(f"{count} {code}" for code, count in errors.most_common())
        broken.append(f"errors {errors.total() / requests:.1%} > {limits.errors:.1%} ({codes})")
    if late_ms > limits.late_ms:
        broken.append(
            f"the client sent {late_ms:,.0f} ms late at p99 > {limits.late_ms:g} ms: it can't send more, or has no core"
        )
    return broken


def thin(run: TrafficRun) -> list[Operation]:
    """The operations with too few requests for a 99th percentile to say anything."""
    return [tail.operation for tail in run.tails if tail.requests < _FEWEST]


def _percentile(values: Sequence[float], rank: float) -> float | None:
    return float(np.percentile(values, rank)) if values else None
