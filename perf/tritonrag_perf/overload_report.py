"""The record of `tritonrag_perf.overload`: every sample as JSON, and medians and ranges as a page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds; all 0 where nothing was measured."""

    count: int
    p50_ms: float
    p99_ms: float
    most_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> "Times":
        """Of all times."""
        p50, p99, most = np.percentile(times_ms or [0.0], [50, 99, 100]).tolist()
        return cls(count=len(times_ms), p50_ms=p50, p99_ms=p99, most_ms=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One flood at `factor` times the maximum. `late` is the share of requests that the client sent more than 10 ms late."""

    factor: float
    sent_per_s: float
    answered_per_s: float
    refused_per_s: float
    answered: Times
    refused: Times
    wrong: int
    failed: int
    failures: tuple[str, ...]
    late: float

    def __str__(self) -> str:
        return (
            f"{self.factor:g} times: sent {self.sent_per_s:.0f}/s, answered {self.answered_per_s:.0f}/s in p99"
            f" {self.answered.p99_ms:.0f} ms, refused {self.refused_per_s:.0f}/s in p50 {self.refused.p50_ms:.0f}, p99"
            f" {self.refused.p99_ms:.0f} ms, wrong {self.wrong}, failed {self.failed} {self.failures}, late {self.late:.0%}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The most that is answered with so many `clients` that wait, their times, and the floods."""

    most_per_s: float
    clients: int
    closed: Times
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """All samples of one run, so far."""

    date: str
    machine: Machine
    command: str
    questions: str
    waiting: int
    wait_s: float
    precision: str
    instances: int
    seconds: float
    rounds: tuple[Round, ...]

    def of(self, factor: float) -> list[tuple[Round, Sample]]:
        """Every sample at a factor, with its round."""
        return [(round_, one) for round_ in self.rounds for one in round_.samples if one.factor == factor]


_COLUMNS: Final = (
    "times that", "sent/s", "answered/s", "of the most", "answered: p50 ms", "p99 ms",
    "refused/s", "refused: p50 ms", "p99 ms", "wrong", "failed", "sent late",
)  # fmt: skip
_HEADING: Final = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"


def write_overload(record: Overload, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: Overload) -> str:
    """The page."""
    most = Spread.of([one.most_per_s for one in record.rounds])
    closed = Spread.of([one.closed.p99_ms for one in record.rounds])
    rows = [_row(record.of(factor)) for factor in sorted({one.factor for one in record.rounds[0].samples})]
    return f"""# `retrieve` under more than it can answer

Measured on {record.date}: {record.machine}. {record.questions}; rounds: {len(record.rounds)}, {record.seconds:g} s each.
Processes that embed and search: {record.instances}, in {record.precision}.
Limits of each: {record.waiting} questions that wait, {record.wait_s:g} s.

    {record.command}

With {record.rounds[0].clients} clients that wait for their answers:
{_show(most, ".0f")} questions/s, p99 {_show(closed, ".0f")} ms.

{_HEADING}
{chr(10).join(rows)}

- Requests come at random times (Poisson), whatever is answered. One process sends them all and reads the answers, on the server's
  cores; a time is from when a request was sent to when the process has read what came back. "sent late" is the share that it sent
  more than 10 ms late.
- Refused is an `overloaded` error; wrong, an answer whose passages are others than when nothing else ran; failed, anything else.
- Medians of the rounds, with the least and the greatest; wrong and failed are sums.
"""


def _row(samples: list[tuple[Round, Sample]]) -> str:
    def spread(value: Callable[[Sample], float], form: str) -> str:
        return _show(Spread.of([value(one) for _, one in samples]), form)

    of_most = Spread.of([one.answered_per_s / round_.most_per_s for round_, one in samples])
    cells = [
        f"{samples[0][1].factor:g}",
        spread(lambda one: one.sent_per_s, ".0f"),
        spread(lambda one: one.answered_per_s, ".0f"),
        _show(of_most, ".2f"),
        spread(lambda one: one.answered.p50_ms, ".0f"),
        spread(lambda one: one.answered.p99_ms, ".0f"),
        spread(lambda one: one.refused_per_s, ".0f"),
        spread(lambda one: one.refused.p50_ms, ".1f"),
        spread(lambda one: one.refused.p99_ms, ".0f"),
        str(sum(one.wrong for _, one in samples)),
        str(sum(one.failed for _, one in samples)),
        spread(lambda one: one.late, ".0%"),
    ]
    return f"| {' | '.join(cells)} |"


def _show(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
