"""Kinds of index as they were served: JSON for programs, Markdown for people, questions per second as a picture."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import KINDS, OperatingPoint
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.sizes import size_name
from tritonrag_perf.spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTES: Final = """\
- Recall is recall@10 against exact search over the stored vectors, on held-out queries that had no part in choosing the effort.
- Each figure is the median over the rounds of a load, with the least and the greatest in brackets. The indexes were served one
  after the other, so that a drift of the machine stands between them: expect 10 to 30 % of noise.
- "retriever ms" is the mean time that the retriever computes on the batch a question is in; the rest of the latency is the
  embedder's, the queues' and the way there and back. The client shares the cores with the server."""
_GROUP: Final = 0.85  # of the distance between two sizes, taken by their bars


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLoad:
    """`retrieve` with so many clients in a closed loop. `retriever_ms` is per request, `failed` counts requests of all rounds."""

    clients: int
    rounds: int
    questions_per_s: Spread
    p50_ms: Spread
    p99_ms: Spread
    retriever_ms: Spread
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKind:
    """One index as `tritonrag bench` measured it. `point` None: not known. `failures` are measurements that came to nothing."""

    name: str
    kind: Kind
    passages: int
    point: OperatingPoint | None
    date: str
    machine: str
    server: str
    questions: str
    loads: tuple[ServedLoad, ...]
    failures: tuple[str, ...]


def write_served_kinds(served: Iterable[ServedKind], output: Path, *, name: str, how: str, plot: bool) -> list[Path]:
    """Write NAME.json, NAME.md and, with `plot`, NAME.png into `output`; returns what was written.

    `how` says how it was made: a module's docstring, whose first line the page leaves out. Raises BadRequestError where a plot is
    wanted and matplotlib is not installed.
    """
    if plot:
        require_matplotlib()
    ordered = sorted(served, key=lambda one: (one.passages, KINDS.index(one.kind)))
    output.mkdir(parents=True, exist_ok=True)
    data, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    data.write_text(json.dumps([asdict(one) for one in ordered], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(_page(ordered, how, picture.name if plot else None), encoding="utf-8")
    if not plot:
        return [data, page]
    _write_plot(ordered, picture)
    return [data, page, picture]


def _page(served: Sequence[ServedKind], how: str, picture: str | None) -> str:
    machines = dict.fromkeys(f"{one.date}: {one.machine}. {one.server}; {one.questions}." for one in served)
    failures = [f"- Not measured: {one.name}: {failure}" for one in served for failure in one.failures]
    lines = [
        "# Kinds of index, served",
        "",
        *(f"Measured on {machine}" for machine in machines),
        "",
        *([f"![Questions per second by size and kind]({picture})", ""] if picture else []),
        *_table(served),
        "",
        _NOTES,
        *failures,
        "",
        "## How this was made",
        "",
        how.partition("\n\n")[2].strip("\n"),
    ]
    return "\n".join(lines) + "\n"


def _table(served: Sequence[ServedKind]) -> list[str]:
    clients = _clients(served)
    headings = ["passages", "kind", "recall@10", "effort", "re-scored"]
    for number in clients:
        figures = ("questions/s", "p50 ms", "p99 ms", "retriever ms")
        headings += [f"{figure}, {_clients_in_words(number)}" for figure in figures]
    rows = [[*_index_cells(one), *(cell for number in clients for cell in _load_cells(one, number))] for one in served]
    failed = [str(sum(load.failed for load in one.loads)) for one in served]
    rows = [[*row, number] for row, number in zip(rows, failed, strict=True)]
    return [f"| {' | '.join(cells)} |" for cells in ([*headings, "failed"], ["---"] * (len(headings) + 1), *rows)]


def _index_cells(one: ServedKind) -> list[str]:
    point = one.point
    recall = "-" if point is None or point.recall_at_10 is None else f"{point.recall_at_10:.3f}"
    effort = ["-", "-"] if point is None else [str(point.effort), str(point.rescore)]
    return [size_name(one.passages), f"`{one.kind}`", recall, *effort]


def _load_cells(one: ServedKind, clients: int) -> list[str]:
    for load in one.loads:
        if load.clients == clients:
            return [
                _cell(load.questions_per_s, 0),
                _cell(load.p50_ms, 1),
                _cell(load.p99_ms, 1),
                _cell(load.retriever_ms, 2),
            ]
    return ["-"] * 4


def _cell(spread: Spread, decimals: int) -> str:
    median, low, high = (f"{value:,.{decimals}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"


def _clients(served: Sequence[ServedKind]) -> list[int]:
    return sorted({load.clients for one in served for load in one.loads})


def _clients_in_words(number: int) -> str:
    return f"{number} client{'s' if number > 1 else ''}"


def _write_plot(served: Sequence[ServedKind], path: Path) -> None:
    """A panel for each number of clients, a group of bars for each size, a bar for each kind; whiskers are the range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    clients = _clients(served)
    figure = Figure(figsize=(10, 0.4 + 3.2 * len(clients)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(clients), 1, squeeze=False)[:, 0]
    for axes, number in zip(panels, clients, strict=True):
        _panel(axes, served, number)
    panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars
    figure.suptitle(", ".join(dict.fromkeys(one.machine for one in served)), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _panel(axes: "Axes", served: Sequence[ServedKind], clients: int) -> None:
    sizes = sorted({one.passages for one in served})
    width = _GROUP / len(KINDS)
    for number, kind in enumerate(KINDS):
        bars = [
            (one.passages, load) for one in served if one.kind == kind for load in one.loads if load.clients == clients
        ]
        speeds = [load.questions_per_s for _, load in bars]
        places = [sizes.index(passages) + number * width for passages, _ in bars]
        whiskers = [[one.median - one.low for one in speeds], [one.high - one.median for one in speeds]]
        if bars:
            heights = [one.median for one in speeds]
            axes.bar(places, heights, width, yerr=whiskers, capsize=2, label=kind, color=f"C{number}")
    middle = (len(KINDS) - 1) * width / 2
    axes.set_xticks([group + middle for group in range(len(sizes))], [size_name(size) for size in sizes])
    axes.set_title(f"questions/s, {_clients_in_words(clients)}", fontsize="medium")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
