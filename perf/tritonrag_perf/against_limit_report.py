"""The record of `tritonrag_perf.against_limit`: every sample as JSON, and medians and ranges of ratios as a page."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One load in one round, and the limit around it. CPU times are milliseconds a question; the client's are cores."""

    load: Load
    served_per_s: float
    limit_per_s: float
    served_p50_ms: float
    served_p99_ms: float
    limit_p50_ms: float
    server_cpu_ms: float
    limit_cpu_ms: float
    client_cores: float

    @property
    def ratio(self) -> float:
        """Served questions for one of the limit's."""
        return self.served_per_s / self.limit_per_s

    @property
    def added_ms(self) -> float:
        """What a question takes longer at the median; meaningful with one client, where the limit goes question by question."""
        return self.served_p50_ms - self.limit_p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """All samples of one run. `measured` is its day."""

    machine: Machine
    questions: str
    samples: tuple[Sample, ...]
    command: str = "python -m tritonrag_perf.against_limit"
    measured: str = ""

    def loads(self) -> list[Load]:
        """The loads, fewest clients first."""
        return sorted(dict.fromkeys(s.load for s in self.samples), key=lambda load: (load.batch, load.concurrency))

    def spread(self, load: Load, figure: Callable[[Sample], float]) -> Spread:
        """One figure of one load over its rounds."""
        return Spread.of(figure(sample) for sample in self.samples if sample.load == load)


_COLUMNS: Final[tuple[tuple[str, Callable[[Sample], float], str], ...]] = (
    ("questions/s served", lambda s: s.served_per_s, ".0f"),
    ("in-process limit", lambda s: s.limit_per_s, ".0f"),
    ("ratio", lambda s: s.ratio, ".2f"),
    ("p50 ms", lambda s: s.served_p50_ms, ".1f"),
    ("p99 ms", lambda s: s.served_p99_ms, ".1f"),
    ("server CPU ms a question", lambda s: s.server_cpu_ms, ".2f"),
    ("limit's", lambda s: s.limit_cpu_ms, ".2f"),
    ("client cores", lambda s: s.client_cores, ".2f"),
)

_NOTES: Final = (
    "- The limit is the same encoder and index in as many single-threaded processes as cores, with no server: batches of 32 or 64,",
    "  whichever does more; for a single client question by question in one process. It is measured before and after each load of",
    "  the server; the ratio is taken round by round. Medians of the rounds, with the least and the greatest.",
    "- The client shares the server's cores: what it takes of them stands in the last column, and the limit has no client.",
    "- Nothing is remembered: every question is embedded and searched.",
)


def write_against(record: Against, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: Against) -> str:
    """The table, in Markdown: the median of the rounds, with the least and the greatest."""
    lines = [
        "# Serving against the in-process limit",
        "",
        f"Measured on {record.measured}: {record.machine}. {record.questions}.",
        "",
        f"    {record.command}",
        "",
        "| load | " + " | ".join(title for title, _, _ in _COLUMNS) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
        *(_row(record, load) for load in record.loads()),
    ]
    alone = [load for load in record.loads() if load.concurrency == load.batch == 1]
    lines += [
        f"\nA single client's question takes {_cell(record.spread(load, lambda s: s.added_ms), '.2f')} ms longer than in-process."
        for load in alone
    ]
    return "\n".join([*lines, "", *_NOTES]) + "\n"


def _row(record: Against, load: Load) -> str:
    cells = [_cell(record.spread(load, figure), form) for _, figure, form in _COLUMNS]
    return f"| {load} | {' | '.join(cells)} |"


def _cell(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
