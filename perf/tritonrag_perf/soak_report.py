"""The record of a soak: every sample as JSON, what grows as a page, the samples as a picture."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tritonrag_perf.machine import Machine
from tritonrag_perf.soak_samples import Held, Sample
from tritonrag_perf.soak_trend import Trend, fit

MIB: Final = 2**20
_ALL: Final = "all processes"
_SHARE: Final = 0.01  # of the level, which memory may gain while it is watched and still be called flat
_MEMORY_MIB: Final = 2.0  # or so much
_NOTES: Final = f"""\
- Growth is the slope of a line through the samples after the warm-up (Theil-Sen: the median slope between any two), with its 95 %
  interval (Sen 1968), which takes samples for independent: drift that comes and goes makes it too narrow.
- "grows": the whole interval is above 0, and the line rose while it was watched by more than {_SHARE:.0%} of the level and, for
  memory, {_MEMORY_MIB:g} MiB; for anything else, by more than half of one. A short run tells little of an hour.
- Private memory is a process' own that was written to; RSS counts what several share in each. PSS is in the samples alone: it rises
  when another program on the machine that maps the same files ends. Shared memory is what its pages take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """One run. Samples before `warm_up_s` are in no trend. `trouble` is why sampling ended early; "" if it did not."""

    date: str
    machine: Machine
    command: str
    questions: str
    minutes: float
    warm_up_s: float
    rate_per_s: float
    requests: dict[str, int]
    failures: dict[str, int]
    changes: dict[str, int]
    named: tuple[str, ...]
    samples: tuple[Sample, ...]
    trouble: str = ""

    @property
    def kept(self) -> list[Sample]:
        """The samples after the warm-up."""
        return [sample for sample in self.samples if sample.at_s >= self.warm_up_s]

    def trends(self) -> dict[str, Trend]:
        """Each series' trend. Raises BadRequestError for too few samples."""
        hours = [sample.at_s / 3600 for sample in self.kept]
        return {
            name: fit(hours, [value(sample) for sample in self.kept], tolerance=least, share=share)
            for name, value, least, share in _series(self)
        }

    def growing(self) -> list[str]:
        """The series that grow."""
        return [name for name, trend in self.trends().items() if trend.grows]


_Value = Callable[[Sample], float]
_PROCESS_FIGURES: Final[tuple[tuple[str, Callable[[Held], float], float, float], ...]] = (
    ("private MiB", lambda held: held.private_bytes / MIB, _MEMORY_MIB, _SHARE),
    ("RSS MiB", lambda held: held.rss_bytes / MIB, _MEMORY_MIB, _SHARE),
    ("threads", lambda held: held.threads, 0.5, _SHARE),
    ("descriptors", lambda held: held.descriptors, 0.5, _SHARE),
)


def _series(soak: Soak) -> Iterator[tuple[str, _Value, float, float]]:
    """Name, value, and what is tolerated, absolute and as a share: all processes together, then each, then the server's own."""
    for figure, of, least, share in _PROCESS_FIGURES:
        yield f"{_ALL}: {figure}", _summed(of), least, share
        for process in soak.samples[0].processes:
            yield f"{process}: {figure}", _of_one(process, of), least, share
    yield "shared memory: regions", lambda sample: sample.regions, 0.5, 0.0
    yield "shared memory: MiB", lambda sample: sample.region_bytes / MIB, _MEMORY_MIB, _SHARE
    yield "generations that run", lambda sample: sample.generations, 0.5, 0.0


def _summed(of: Callable[[Held], float]) -> _Value:
    return lambda sample: sum(map(of, sample.processes.values()))


def _of_one(process: str, of: Callable[[Held], float]) -> _Value:
    return lambda sample: of(sample.processes[process])


def write_soak(soak: Soak, output: Path, *, name: str, plot: bool) -> list[Path]:
    """Write NAME.json, NAME.md and, with `plot`, NAME.png; returns them. Raises BadRequestError for too few samples."""
    output.mkdir(parents=True, exist_ok=True)
    data, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    trends = {series: asdict(trend) | {"verdict": trend.verdict} for series, trend in soak.trends().items()}
    data.write_text(json.dumps(asdict(soak) | {"trends": trends}, indent=1) + "\n", encoding="utf-8")
    page.write_text(render(soak, plot=picture.name if plot else None), encoding="utf-8")
    if not plot:
        return [data, page]
    from tritonrag_perf.soak_plot import write_soak_plot  # noqa: PLC0415 - matplotlib is an extra, slow to import

    write_soak_plot(picture, soak)
    return [data, page, picture]


def render(soak: Soak, *, plot: str | None) -> str:
    """The page, in Markdown."""
    lines = [
        "# A long run",
        "",
        f"Measured on {soak.date}: {soak.machine}.",
        f"{soak.questions}; {soak.rate_per_s:g} requests a second for {soak.minutes:g} minutes.",
        f"{len(soak.kept)} samples after the warm-up of {soak.warm_up_s / 60:.1f} minutes.",
        "",
        f"    {soak.command}",
        "",
        verdict(soak),
        "",
        *([f"![What the server holds over time]({plot})", ""] if plot else []),
        "| | requests | not as they should be |",
        "|---|---|---|",
        *(_requests_row(soak, operation) for operation in sorted(soak.requests)),
        "",
        f"The index changed meanwhile: {_counted(soak.changes) or 'not at all'}.",
        *(f"\nNot as it should be: {what}." for what in soak.named),
        "",
        "| | level | growth an hour | 95 % interval | rose by | |",
        "|---|---|---|---|---|---|",
        *(_trend_row(name, trend) for name, trend in soak.trends().items()),
        "",
        _NOTES,
    ]
    return "\n".join(lines) + "\n"


def verdict(soak: Soak) -> str:
    """The result in a sentence or two."""
    growing, failed = soak.growing(), sum(soak.failures.values())
    held = (
        f"**Grows: {', '.join(growing)}.**" if growing else "**Flat: memory, threads, descriptors and shared memory.**"
    )
    asked = f"{sum(soak.requests.values()):,} requests, {failed} of which did not end as they should."
    return " ".join([held, asked, *([f"Sampling ended early: {soak.trouble}."] if soak.trouble else [])])


def _requests_row(soak: Soak, operation: str) -> str:
    failed = {code: count for code, count in soak.failures.items() if code.startswith(f"{operation}: ")}
    return f"| {operation} | {soak.requests[operation]:,} | {_counted(failed) or 0} |"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _trend_row(name: str, trend: Trend) -> str:
    interval = f"{trend.low_per_hour:+,.2f} to {trend.high_per_hour:+,.2f}"
    told = f"**{trend.verdict}**" if trend.grows else trend.verdict
    return f"| {name} | {trend.level:,.1f} | {trend.per_hour:+,.2f} | {interval} | {trend.grown:+,.2f} | {told} |"
