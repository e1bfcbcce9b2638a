"""The record of `tritonrag_perf.open_loop`: every sample as JSON, and medians and ranges of ratios as a page."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag_perf.load import DECOUPLED
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread

FEWEST_REQUESTS: Final = 1000  # for a 99th percentile: ten requests are then beyond it


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """So many clients, each of which waits for its answer. Latencies of a model that streams are those of the first token."""

    clients: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    client_cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Requests at `share` of the maximum, `asked_per_s`; latencies are counted from when a request was sent.

    `late_percent` are those that the client sent late; None is below 1 %, for perf_analyzer tells no less. `failed` counts the
    server's failures.
    """

    share: float
    asked_per_s: float
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    late_percent: float | None
    failed: int
    client_cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round measured; `maxima` has one of each number of clients."""

    unloaded: Closed
    maxima: tuple[Closed, ...]
    opened: tuple[Open, ...]

    @property
    def maximum(self) -> Closed:
        """Where most was answered."""
        return best(self.maxima)

    def ratio(self, opened: Open) -> float:
        """The tail under load for one unloaded median."""
        return opened.p99_ms / self.unloaded.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A measurement that came to nothing: `round` from 1 (0 is the warm-up), what it was and why it ended.

    `failed` are the requests that the server failed; None where they were not counted.
    """

    round: int
    load: str
    failed: int | None
    reason: str

    def __str__(self) -> str:
        counted = "" if self.failed is None else f", {self.failed} failed"
        where = f" in round {self.round}" if self.round else ""
        return f"{self.load}{where}{counted}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """All samples of one run, so far."""

    date: str
    machine: Machine
    server_version: str
    perf_analyzer_version: str
    command: str
    questions: str
    model: str
    rounds: tuple[Round, ...]
    lost: tuple[Lost, ...] = ()

    def shares(self) -> list[float]:
        """The shares of the maximum that were measured, smallest first."""
        return sorted({one.share for round_ in self.rounds for one in round_.opened})

    def of(self, share: float) -> list[tuple[Round, Open]]:
        """Every sample at a share, with its round."""
        return [(round_, one) for round_ in self.rounds for one in round_.opened if one.share == share]


def best(maxima: Iterable[Closed]) -> Closed:
    """The number of clients at which most was answered."""
    return max(maxima, key=lambda one: one.requests_per_s)


def write_open_loop(record: OpenLoop, output: Path, name: str) -> list[Path]:
    """Write NAME.json and, once there is a round, NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    if not record.rounds:
        return [data]
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


_COLUMNS: Final[tuple[tuple[str, str, Callable[[Round, Open], float]], ...]] = (
    ("asked/s", ".1f", lambda _, one: one.asked_per_s),
    ("reached/s", ".1f", lambda _, one: one.requests_per_s),
    ("reached of the maximum", ".2f", lambda round_, one: one.requests_per_s / round_.maximum.requests_per_s),
    ("p50 ms", ".1f", lambda _, one: one.p50_ms),
    ("p99 ms", ".1f", lambda _, one: one.p99_ms),
    ("p99 / unloaded p50", ".1f", lambda round_, one: round_.ratio(one)),
    ("client cores", ".2f", lambda _, one: one.client_cores),
)


def render(record: OpenLoop) -> str:
    """The page: of each figure the median of the rounds, with the least and the greatest."""
    heading = ["share", *(title for title, _, _ in _COLUMNS), "late", "failed", "requests, at least"]
    lines = [
        f"# `{record.model}` under an open loop",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"Triton {record.server_version}, perf_analyzer {record.perf_analyzer_version}, rounds: {len(record.rounds)}.",
        f"{record.questions}.",
        "",
        f"    {record.command}",
        "",
        *_closed_table(record),
        "",
        f"| {' | '.join(heading)} |",
        "|---" * len(heading) + "|",
        *(_row(record, share) for share in record.shares()),
        "",
        *_notes(record),
    ]
    return "\n".join(lines) + "\n"


def _closed_table(record: OpenLoop) -> list[str]:
    rounds = record.rounds
    clients = " or ".join(str(number) for number in sorted({round_.maximum.clients for round_ in rounds}))
    unloaded = _cell((round_.unloaded.p50_ms for round_ in rounds), ".2f")
    maximum = _cell((round_.maximum.requests_per_s for round_ in rounds), ".0f")
    cores = _cell((round_.maximum.client_cores for round_ in rounds), ".2f")
    return [
        "| closed loop | |",
        "|---|---|",
        f"| unloaded p50, 1 client, ms | {unloaded} |",
        f"| own maximum, {clients} clients, questions/s | {maximum} |",
        f"| client cores there | {cores} |",
    ]


def _row(record: OpenLoop, share: float) -> str:
    samples = record.of(share)
    cells = [_cell((figure(round_, one) for round_, one in samples), form) for _, form, figure in _COLUMNS]
    late = [one.late_percent for _, one in samples if one.late_percent is not None]
    cells += [
        f"up to {max(late):.1f} %" if late else "below 1 %",
        str(sum(one.failed for _, one in samples)),
        f"{min(one.requests for _, one in samples):,}",
    ]
    return f"| {share:.0%} | {' | '.join(cells)} |"


def _notes(record: OpenLoop) -> list[str]:
    counted = "to the first token of a streamed answer" if record.model in DECOUPLED else "to the answer"
    notes = [
        f"- Latency is the time {counted}. A ratio is taken within its round.",
        "- Each figure is the median of the rounds, with the least and the greatest. The retriever keeps no answers, so that a",
        "  question asked twice is work twice.",
        "- Requests come at random times (Poisson) at a share of the maximum that the same round measured, whatever is answered.",
        "  perf_analyzer draws the same times in every run: requests bunch alike in every round, and with about 1,000 of them the",
        "  reached rate is 4 to 5 % below the asked one, with 4,000 it is 1 % below.",
        "- Latency is counted from when a request was sent. One that the client sent late waited before that, which no figure",
        "  shows: where many are late, p99 is better than it should be. The client shares the server's cores.",
    ]
    few = [one for share in record.shares() for _, one in record.of(share) if one.requests < FEWEST_REQUESTS]
    if few:
        notes.append(f"- Measurements with fewer than {FEWEST_REQUESTS:,} requests, whose p99 says little: {len(few)}.")
    notes += [f"- Not measured, and in no figure: {one}." for one in record.lost]
    return notes


def _cell(values: Iterable[float], form: str) -> str:
    spread = Spread.of(values)
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
