"""A sweep's figures as Markdown for people and JSON for programs."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from tritonrag_perf.figures import Figures, Round
from tritonrag_perf.load import Load
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.scrape_use import Use
from tritonrag_perf.server_time import StageTime
from tritonrag_perf.spread import Spread

_NOTES = """\
- Each figure is the median over the rounds, with the least and the greatest in brackets; the rounds of all rows were interleaved.
- The client shares the cores with the server ("client cores" is what perf_analyzer took of them), and figures are noisy: \
expect 10 to 30 % from one run to the next, and compare ratios within a run rather than figures between runs.
- Latency is the time to the last response of a request; "first" is that to the first response of an answer.
- Closed loop: a client sends its next question when the answer to the last one is complete, so rate and latency belong together.
- With a rate in place of clients an open loop: requests come at random times (Poisson), whatever is answered."""

_STAGE_NOTES = """\
Means per request from Triton's own statistics, warm-up included; "batch" is the mean number of questions executed together.
The first row of each load is the ensemble as a whole. The generator's compute time ends when it has taken a request in: the time
that its answer takes is in the latency above."""

_METRICS_NOTES = """\
From the metrics endpoint, read before, after and every half second: counters by what they grew a question, those that grew;
gauges by their median with the least and the greatest."""


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
        *_costs(figures),
        *_metrics(figures),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


_Figure = Callable[[Round], float | None]
_Columns = tuple[tuple[str, int, _Figure], ...]  # heading, decimals, figure


def _measured(figure: Callable[[Measurement], float | None]) -> _Figure:
    return lambda one: figure(one.measurement)


def _used(figure: Callable[[Use], float | None]) -> _Figure:
    return lambda one: figure(one.use) if one.use else None


_COLUMNS: _Columns = (
    ("questions/s", 0, _measured(lambda m: m.requests_per_s)),
    ("p50 ms", 1, _measured(lambda m: m.latency.p50_ms)),
    ("p90 ms", 1, _measured(lambda m: m.latency.p90_ms)),
    ("p95 ms", 1, _measured(lambda m: m.latency.p95_ms)),
    ("p99 ms", 1, _measured(lambda m: m.latency.p99_ms)),
    ("first p50 ms", 1, _measured(lambda m: m.first_response.p50_ms if m.first_response else None)),
    ("first p99 ms", 1, _measured(lambda m: m.first_response.p99_ms if m.first_response else None)),
    ("client cores", 2, _measured(lambda m: m.client_cores)),
)
_COST_COLUMNS: _Columns = (
    ("server CPU ms", 2, _used(lambda u: u.server_cpu_ms)),
    ("client CPU ms", 2, _used(lambda u: u.client_cpu_ms)),
    ("server MiB", 0, _used(lambda u: u.server_pss_bytes / 2**20 if u.server_pss_bytes else None)),
)
_COST_NOTES = """\
CPU milliseconds of one question, warm-up included: of all processes of the server, and of perf_analyzer. Memory is that of the
server's processes at the end of a measurement, with what several share counted once (PSS)."""


def _load_table(figures: Figures) -> list[str]:
    rows = []
    for load in figures.loads():
        cells = [_cell(figures.of(load), figure, decimals) for _, decimals, figure in _COLUMNS]
        rows.append([f"`{load.model}`", load.pressure, *cells, str(_failures(figures, load))])
    return _table(["model", "clients", *(heading for heading, _, _ in _COLUMNS), "failed"], rows)


def _stage_table(figures: Figures) -> list[str]:
    rows = [
        [f"`{load.model}` at {load.pressure}", f"`{stages[0].model}`", *_stage_cells(stages)]
        for load in figures.loads()
        for stages in zip(*(r.stages for r in figures.of(load)), strict=True)
    ]
    return _table(["load", "stage", "batch", "queue ms", "input ms", "infer ms", "output ms"], rows)


def _stage_cells(stages: Sequence[StageTime]) -> list[str]:
    figures = [(s.batch, s.queue_ms, s.input_ms, s.infer_ms, s.output_ms) for s in stages]
    batch, *times_ms = (median(values) for values in zip(*figures, strict=True))
    return [f"{batch:.1f}", *(f"{value:.2f}" for value in times_ms)]


def _costs(figures: Figures) -> list[str]:
    """What a question costs; nothing where that was not looked at."""
    if not any(r.use for r in figures.rounds):
        return []
    rows = [
        [
            f"`{load.model}` at {load.pressure}",
            *(_cell(figures.of(load), f, decimals) for _, decimals, f in _COST_COLUMNS),
        ]
        for load in figures.loads()
    ]
    table = _table(["load", *(heading for heading, _, _ in _COST_COLUMNS)], rows)
    return ["", "## What a question costs", "", _COST_NOTES, "", *table]


def _metrics(figures: Figures) -> list[str]:
    """What the server's counters grew by a question, and its gauges; nothing where no metrics were read."""
    lines = [line for load in figures.loads() for line in _metrics_of(load, figures.of(load))]
    return ["", "## What the metrics say", "", _METRICS_NOTES, *lines] if lines else []


def _metrics_of(load: Load, rounds: Sequence[Round]) -> list[str]:
    uses = [r.use for r in rounds if r.use and r.use.metrics]
    seen = [use.metrics for use in uses if use.metrics]
    questions = max(sum(use.questions for use in uses), 1)
    counters = {name: sum(one.counters.get(name, 0.0) for one in seen) for one in seen for name in one.counters}
    gauges: dict[str, list[Spread]] = {}
    for one in seen:
        for name, spread in one.gauges.items():
            gauges.setdefault(name, []).append(spread)
    rows = [[f"`{name}`", f"{value / questions:,.4g}", "-"] for name, value in sorted(counters.items())]
    rows += [[f"`{name}`", "-", _joined(spreads)] for name, spreads in sorted(gauges.items())]
    return ["", f"### {load}", "", *_table(["series", "growth a question", "gauge"], rows)] if rows else []


def _joined(spreads: Sequence[Spread]) -> str:
    """The gauge over all rounds: the median of the rounds' medians."""
    low, high = min(s.low for s in spreads), max(s.high for s in spreads)
    return f"{median(s.median for s in spreads):,.4g} ({low:,.4g}-{high:,.4g})"


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


def _cell(rounds: Sequence[Round], figure: _Figure, decimals: int) -> str:
    """Median and range; a dash where the load has no such figure."""
    values = [value for r in rounds if (value := figure(r)) is not None]
    if not values:
        return "-"
    median_, low, high = (f"{value:,.{decimals}f}" for value in (median(values), min(values), max(values)))
    return f"{median_} ({low}-{high})"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(headings), _row(["---"] * len(headings)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
