"""A sweep's figures as Markdown for people and JSON for programs."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from tritonrag_perf.figures import Figures, Round
from tritonrag_perf.load import Load
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.server_time import StageTime

_NOTES = """\
- Each figure is the median over the rounds, with the least and the greatest in brackets; the rounds of all rows were interleaved.
- The client shares the cores with the server ("client cores" is what perf_analyzer took of them), and figures are noisy: \
expect 10 to 30 % from one run to the next, and compare ratios within a run rather than figures between runs.
- Latency is the time to the last response of a request; "first" is that to the first response of an answer.
- Closed loop: a client sends its next question when the answer to the last one is complete, so rate and latency belong together."""

_STAGE_NOTES = """\
Means per request from Triton's own statistics, warm-up included; "batch" is the mean number of questions executed together.
The first row of each load is the ensemble as a whole. The generator's compute time ends when it has taken a request in: the time
that its answer takes is in the latency above."""


def write_json(path: Path, figures: Figures) -> None:
    """Every round, unrounded."""
    path.write_text(json.dumps(figures.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_markdown(path: Path, figures: Figures, *, title: str, plot: str | None) -> None:
    """The page for people; `plot` is the picture's file name beside it."""
    rounds = len(figures.of(figures.loads()[0]))
    answers = "streamed" if figures.stream else "in one piece"
    lines = [
        f"# {title}",
        "",
        f"Measured on {figures.date}: {figures.machine}.",
        f"Triton {figures.server_version}, perf_analyzer {figures.perf_analyzer_version}, rounds: {rounds}, {figures.questions}.",
        f"`rag` and `generator` answered {answers}.",
        "",
        f"    {figures.command}",
        "",
        *([f"![Questions per second and latency by number of clients]({plot})", ""] if plot else []),
        *_load_table(figures),
        "",
        _NOTES,
        *([_unstable_note(figures)] if _unstable(figures) else []),
        *_failure_notes(figures),
        "",
        "## Where the server spends the time",
        "",
        _STAGE_NOTES,
        "",
        *_stage_table(figures),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


_COLUMNS: tuple[tuple[str, int, Callable[[Measurement], float | None]], ...] = (  # heading, decimals, figure
    ("questions/s", 0, lambda m: m.requests_per_s),
    ("p50 ms", 1, lambda m: m.latency.p50_ms),
    ("p90 ms", 1, lambda m: m.latency.p90_ms),
    ("p95 ms", 1, lambda m: m.latency.p95_ms),
    ("p99 ms", 1, lambda m: m.latency.p99_ms),
    ("first p50 ms", 1, lambda m: m.first_response.p50_ms if m.first_response else None),
    ("first p99 ms", 1, lambda m: m.first_response.p99_ms if m.first_response else None),
    ("client cores", 2, lambda m: m.client_cores),
)


def _load_table(figures: Figures) -> list[str]:
    rows = []
    for load in figures.loads():
        cells = [_cell(figures.of(load), figure, decimals) for _, decimals, figure in _COLUMNS]
        rows.append([f"`{load.model}`", str(load.concurrency), *cells, str(_failures(figures, load))])
    return _table(["model", "clients", *(heading for heading, _, _ in _COLUMNS), "failed"], rows)


def _stage_table(figures: Figures) -> list[str]:
    rows = [
        [f"`{load.model}` at {load.concurrency}", f"`{stages[0].model}`", *_stage_cells(stages)]
        for load in figures.loads()
        for stages in zip(*(r.stages for r in figures.of(load)), strict=True)
    ]
    return _table(["load", "stage", "batch", "queue ms", "input ms", "infer ms", "output ms"], rows)


def _stage_cells(stages: Sequence[StageTime]) -> list[str]:
    figures = [(s.batch, s.queue_ms, s.input_ms, s.infer_ms, s.output_ms) for s in stages]
    batch, *times_ms = (median(values) for values in zip(*figures, strict=True))
    return [f"{batch:.1f}", *(f"{value:.2f}" for value in times_ms)]


def _failures(figures: Figures, load: Load) -> int:
    """Requests of the load that the server counted as failed."""
    return sum(r.stages[0].failures for r in figures.of(load))


def _unstable(figures: Figures) -> int:
    return sum(not r.measurement.stable for r in figures.rounds)


def _unstable_note(figures: Figures) -> str:
    share = f"{_unstable(figures)} of {len(figures.rounds)}"
    return (
        f"- In {share} measurements the windows went on differing by more than was asked for; these count as they are."
    )


def _failure_notes(figures: Figures) -> list[str]:
    return [f"- One measurement failed and stands in no figure: {failure}" for failure in figures.failures]


def _cell(rounds: Sequence[Round], figure: Callable[[Measurement], float | None], decimals: int) -> str:
    """Median and range; a dash where the load has no such figure."""
    values = [value for r in rounds if (value := figure(r.measurement)) is not None]
    if not values:
        return "-"
    median_, low, high = (f"{value:,.{decimals}f}" for value in (median(values), min(values), max(values)))
    return f"{median_} ({low}-{high})"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
