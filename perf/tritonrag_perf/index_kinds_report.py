"""What was measured of the kinds of segment: JSON for programs, Markdown for people, recall against speed as a picture."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tritonrag_perf.index_kinds_measuring import KindFigures, PointFigures
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTES = """\
- Recall is recall@10 against exact search over the stored vectors, on queries that had no part in tuning; a passage that scores as
  much as the tenth counts as found. The tuned point is the fastest that the tuner found to reach {target:g} on queries of its own.
- Queries/s are per second of CPU time of one thread, alone (1 query a call) and together (32 a call), candidates re-scored; medians
  over {rounds} rounds, the least and the greatest in brackets. The rounds of all rows of a table were interleaved.
- Building ran on {threads} threads. Opening is from the page cache, without checking sha256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindsRecord:
    """A whole measurement. `vectors` and `queries` say in words what was searched for what."""

    date: str
    machine: Machine
    faiss_version: str
    command: str
    vectors: str
    queries: str
    target: float
    rounds: int
    build_threads: int
    sizes: tuple[tuple[KindFigures, ...], ...]


def write_kinds_record(record: KindsRecord, output: Path, *, name: str, plot: bool) -> list[Path]:
    """Write NAME.json, NAME.md and, with `plot`, NAME.png into `output`; returns what was written."""
    output.mkdir(parents=True, exist_ok=True)
    data, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    data.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(_page(record, picture.name if plot else None), encoding="utf-8")
    if not plot:
        return [data, page]
    _write_plot(record, picture)
    return [data, page, picture]


def _page(record: KindsRecord, picture: str | None) -> str:
    lines = [
        "# Kinds of segment: recall and speed",
        "",
        f"Measured on {record.date}: {record.machine}. FAISS {record.faiss_version}.",
        f"Vectors: {record.vectors}. Queries: {record.queries}.",
        "",
        f"    {record.command}",
        "",
        *([f"![Queries per second against recall, by kind and size]({picture})", ""] if picture else []),
        _NOTES.format(target=record.target, rounds=record.rounds, threads=record.build_threads),
    ]
    for size in record.sizes:
        lines += ["", f"## {size[0].rows:,} vectors", "", *_tuned_table(size)]
    for size in record.sizes:
        lines += ["", f"## {size[0].rows:,} vectors: recall and speed by effort", "", *_curve_table(size)]
    return "\n".join(lines) + "\n"


def _tuned_table(size: Iterable[KindFigures]) -> list[str]:
    headings = ["kind", "effort", "re-scored", "recall@10", "alone, queries/s", "together, queries/s"]
    rows = [
        [
            f"`{kind.kind}`",
            str(kind.tuned.point.effort),
            str(kind.tuned.point.rescore),
            *_point_cells(kind.tuned),
            f"{kind.build_s:,.1f}",
            f"{kind.tune_s:,.1f}",
            f"{kind.file_bytes / 2**20:,.1f}",
            f"{kind.open_ms:,.1f}",
        ]
        for kind in size
    ]
    return _table([*headings, "build s", "tune s", "file MiB", "open ms"], rows)


def _curve_table(size: Iterable[KindFigures]) -> list[str]:
    rows = [
        [f"`{kind.kind}`", str(point.point.effort), str(point.point.rescore), *_point_cells(point)]
        for kind in size
        for point in kind.curve
    ]
    return _table(["kind", "effort", "re-scored", "recall@10", "alone, queries/s", "together, queries/s"], rows)


def _point_cells(point: PointFigures) -> list[str]:
    return [f"{point.recall:.4f}", _cell(point.alone), _cell(point.together)]


def _cell(speed: Spread) -> str:
    return f"{speed.median:,.0f} ({speed.low:,.0f}-{speed.high:,.0f})"


def _table(headings: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]


def _write_plot(record: KindsRecord, path: Path) -> None:
    """A panel for each size, a line for each kind, its tuned point a ring: queries per CPU second, 32 together, against recall."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to import, wanted only here
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(1 + 4.5 * len(record.sizes), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(record.sizes), squeeze=False)[0]
    for axes, size in zip(panels, record.sizes, strict=True):
        _panel(axes, size, record.target)
    panels[0].set_ylabel("queries per CPU second, 32 together")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(str(record.machine), fontsize="small")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _panel(axes: "Axes", size: Iterable[KindFigures], target: float) -> None:
    rows = 0
    for number, kind in enumerate(size):
        rows, colour = kind.rows, f"C{number}"
        line = kind.curve or (kind.tuned,)
        speeds = [point.together.median for point in line]
        axes.plot([point.recall for point in line], speeds, marker=".", color=colour, label=kind.kind)
        axes.plot(
            kind.tuned.recall, kind.tuned.together.median, marker="o", markersize=10, fillstyle="none", color=colour
        )
    axes.axvline(target, color="grey", linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlim(0.8, 1.005)
    axes.set_xlabel("recall@10")
    axes.set_title(f"{rows:,} vectors")
    axes.grid(alpha=0.3)
