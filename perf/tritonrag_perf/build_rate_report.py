"""The record of `tritonrag_perf.build_rate`: every run as JSON, and rates, ratios and where the time goes as a page."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag_perf.build_rate_raw import RawRun
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRun:
    """One build of an index. Seconds: `command_s` from the start of the process to its end, `job_s` of what the command does once
    it is loaded, `build_s` of embedding and writing, as the command tells it. `steps_s` are those of the job's steps.
    """

    passages: int
    kinds: tuple[str, ...]
    command_s: float
    job_s: float
    build_s: float
    steps_s: dict[str, float]

    @property
    def around_s(self) -> float:
        """Starting Python, loading modules, ending."""
        return self.command_s - self.job_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRound:
    """Two builds, `whole` of twice as many passages as `half`; the raw encoder before and after them, on half of the texts each."""

    round: int
    raw: tuple[RawRun, ...]
    half: BuildRun
    whole: BuildRun

    def __str__(self) -> str:
        return (
            f"raw {self.raw_per_s:,.1f} passages/s, build {self.build_per_s:,.1f}, command {self.command_per_s:,.1f}, "
            f"second half {self.second_half_per_s:,.1f}"
        )

    @property
    def raw_per_s(self) -> float:
        """Texts a second of the raw encoder, over all texts."""
        return sum(one.texts for one in self.raw) / sum(one.seconds for one in self.raw)

    @property
    def command_per_s(self) -> float:
        """Passages a second of the larger build, everything included."""
        return self.whole.passages / self.whole.command_s

    @property
    def build_per_s(self) -> float:
        """The same without what comes before embedding."""
        return self.whole.passages / self.whole.build_s

    @property
    def second_half_per_s(self) -> float:
        """Passages a second by what the larger build takes longer: without all that does not grow. NaN where it takes no longer."""
        longer_s = self.whole.command_s - self.half.command_s
        return (self.whole.passages - self.half.passages) / longer_s if longer_s > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRate:
    """A run, or what there is of it so far. `characters` is the mean of a passage with its title."""

    date: str
    machine: Machine
    command: str
    workers: int
    characters: float
    rounds: tuple[BuildRound, ...] = ()

    def spread(self, figure: Callable[[BuildRound], float]) -> Spread:
        """One figure over the rounds."""
        return Spread.of(map(figure, self.rounds))


_RATES: Final[tuple[tuple[str, Callable[[BuildRound], float]], ...]] = (
    ("raw encoder", lambda one: one.raw_per_s),
    ("build, without fixed costs", lambda one: one.second_half_per_s),
    ("build, embedding and writing", lambda one: one.build_per_s),
    ("build, the whole command", lambda one: one.command_per_s),
)
_NOTES: Final = """\
- Each figure is the median over the rounds, with the least and the greatest in brackets; ratios are of the same round.
- "raw encoder": tokenising and embedding the same texts in packed batches, nothing else, in as many single-threaded processes as a
build has embedders, before and after the builds. The rates of the processes are added up.
- "without fixed costs": the passages that the larger build has more, by the time that it takes longer. What is done once, whatever
the number of passages, is left out: this is the rate at which a large build goes on.
- "embedding and writing": the larger build's own figure, from the first passage until the index is live; the questions to which
it is tuned are embedded in that time, up to 512 of them.
- "the whole command": with starting Python and opening the model."""
_STEP_NOTES: Final = """\
Seconds of the steps that the command announces. "starting and ending" is what the process takes around them. The last row
is what the raw encoder takes for so many passages, to be held beside "embedding"."""


def write_build_rate(record: BuildRate, output: Path, *, name: str) -> list[Path]:
    """Write NAME.json and NAME.md into `output`; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: BuildRate) -> str:
    """The page, in Markdown; of at least one round."""
    first = record.rounds[0]
    sizes = f"{first.half.passages:,} and {first.whole.passages:,} passages"
    lines = [
        "# Bulk indexing",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"Builds of {sizes}, {record.characters:,.0f} characters each on average; kind {', '.join(first.whole.kinds)}.",
        f"Embedders: {record.workers}, rounds: {len(record.rounds)}.",
        "",
        f"    {record.command}",
        "",
        "| | passages/s | of the raw encoder |",
        "|---|---|---|",
        *(_rate_row(record, title, figure) for title, figure in _RATES),
        "",
        _NOTES,
        "",
        "## Where the time goes",
        "",
        f"| step | {first.half.passages:,} passages, s | {first.whole.passages:,} passages, s |",
        "|---|---|---|",
        *_step_rows(record),
        "",
        _STEP_NOTES,
    ]
    return "\n".join(lines) + "\n"


def _rate_row(record: BuildRate, title: str, figure: Callable[[BuildRound], float]) -> str:
    ratio = record.spread(lambda one: figure(one) / one.raw_per_s)
    return f"| {title} | {_cell(record.spread(figure), 1)} | {_cell(ratio, 3)} |"


def _step_rows(record: BuildRate) -> list[str]:
    names = list(dict.fromkeys(name for one in record.rounds for name in (*one.half.steps_s, *one.whole.steps_s)))
    rows: list[tuple[str, Callable[[BuildRun], float]]] = [
        ("starting and ending", lambda run: run.around_s),
        *((name, _step(name)) for name in names),
        ("all", lambda run: run.command_s),
    ]
    raw = [_cell(record.spread(_raw_seconds(part)), 2) for part in (_half, _whole)]
    return [
        *(f"| {title} | {' | '.join(_cells(record, figure))} |" for title, figure in rows),
        f"| the raw encoder | {' | '.join(raw)} |",
    ]


def _half(one: BuildRound) -> BuildRun:
    return one.half


def _whole(one: BuildRound) -> BuildRun:
    return one.whole


def _step(name: str) -> Callable[[BuildRun], float]:
    return lambda run: run.steps_s.get(name, 0.0)


def _raw_seconds(part: Callable[[BuildRound], BuildRun]) -> Callable[[BuildRound], float]:
    return lambda one: part(one).passages / one.raw_per_s


def _cells(record: BuildRate, figure: Callable[[BuildRun], float]) -> list[str]:
    return [_cell(record.spread(lambda one: figure(part(one))), 2) for part in (_half, _whole)]  # noqa: B023 - used at once


def _cell(spread: Spread, decimals: int) -> str:
    median, low, high = (f"{value:,.{decimals}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"
