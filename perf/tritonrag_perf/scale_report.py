"""The record of `tritonrag_perf.scale` as JSON for programs and as a page for people."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tritonrag_perf.scale_plot import write_scale_plot
from tritonrag_perf.scale_record import Memory, Scale, ScaledIndex
from tritonrag_perf.spread import Spread

_MIB: Final = 2**20
_RECALL: Final = 0.95  # what figures of two indexes are compared at

_NOTES: Final = """\
Each figure is the median over the rounds, with the least and the greatest in brackets."""
_INDEX_NOTES: Final = """\
Recall is recall@10 against exact search over the stored vectors, on held-out queries, as it was measured when the index was built;
"effort" and "re-scored" are the point that was tuned then, at which every question is searched. Bytes are those of all files of the
live version, divided by its passages."""
_SERVING_NOTES: Final = """\
Closed loop: a client sends its next question when the last one is answered. Every index got the same questions; nothing was cached,
and each answer has ten passages. "of the first" is the rate for one of the first index's in the same round. The client shares the
cores with the server, and "client cores" is what it took of them."""
_START_NOTES: Final = """\
"start to ready" is a whole server, with every model, from its launch until it says that it is ready, which is asked every 50 ms.
"reading" is a plain read of all bytes of the live version, in pieces of 1 MiB, right before; the files were read once before that,
so that both find them in the page cache. Nothing else was running. Any start loads programs and models, and a tiny index shows how
long that takes; what is "beyond" it, in the same round, is what the index itself adds."""
_MEMORY_NOTES: Final = """\
Of all processes of the server, after the load of the last round; what several share is counted once (PSS). "own" is in no file;
"mapped" are pages of files that were touched, the index among them, which the kernel can take back. "bytes per passage" is what the
server holds more than that with the first index, for each passage that the index has more."""


def write_scale(record: Scale, output: Path, *, name: str, plot: bool) -> list[Path]:
    """Write NAME.json, NAME.md and, with `plot` and something to see, NAME.png into `output`; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    plot = plot and bool(record.serving)
    data.write_text(json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(record, picture.name if plot else None), encoding="utf-8")
    if not plot:
        return [data, page]
    write_scale_plot(picture, record)
    return [data, page, picture]


def render(record: Scale, picture: str | None = None) -> str:
    """The page, in Markdown."""
    lines = [
        "# Serving by size of the index",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.software + '; ' if record.software else ''}{record.questions}.",
        "",
        f"    {record.command}",
        "",
        *([f"![Questions per second by passages and clients]({picture})", ""] if picture else []),
        _NOTES,
        *_indexes(record),
        *_serving(record),
        *_starts(record),
        *_memory(record),
        *_failures(record),
    ]
    return "\n".join(lines) + "\n"


def _indexes(record: Scale) -> list[str]:
    shown = [*record.indexes, *([record.tiny] if record.tiny else [])]
    headings = ["index", "passages", "kind", "mode", "recall@10", "effort", "re-scored", "MiB", "bytes a passage"]
    return ["", "## The indexes", "", *_table(headings, map(_index_row, shown)), "", _INDEX_NOTES, *_short(record)]


def _index_row(index: ScaledIndex) -> list[str]:
    recall = "-" if index.recall_at_10 is None else f"{index.recall_at_10:.4f}"
    efforts = ", ".join(str(point.effort) for point in index.points)
    rescored = ", ".join(str(point.rescore) for point in index.points)
    kinds = ", ".join(f"`{kind}`" for kind in index.kinds)
    size = [f"{index.bytes / _MIB:,.1f}", f"{index.bytes / max(index.passages, 1):,.0f}"]
    return [index.name, f"{index.passages:,}", kinds, index.mode, recall, efforts, rescored, *size]


def _short(record: Scale) -> list[str]:
    """A warning where figures are compared that should not be."""
    short = [one.name for one in record.indexes if one.recall_at_10 is None or one.recall_at_10 < _RECALL]
    return [f"**Not known to reach {_RECALL:g}: {', '.join(short)}; its rate tells little.**"] if short else []


def _serving(record: Scale) -> list[str]:
    if not record.serving:
        return []
    headings = ["clients", "index", "questions/s", "of the first", "p50 ms", "p99 ms", "server CPU ms", "client cores"]
    rows = [_serving_row(record, clients, index.name) for clients in record.clients for index in record.indexes]
    up = "One server was up at a time." if record.one_at_a_time else "The servers of all indexes were up all the time."
    lines = ["", "## Questions a second", "", *_table(headings, rows), "", _SERVING_NOTES, up]
    unstable = sum(not one.stable for one in record.serving)
    if unstable:
        lines.append(f"In {unstable} of {len(record.serving)} measurements the windows went on differing by over 25 %.")
    return lines


def _serving_row(record: Scale, clients: int, index: str) -> list[str]:
    return [
        str(clients),
        index,
        _cell(record.served(index, clients, lambda one: one.questions_per_s), 0),
        _cell(record.ratio(index, clients), 2),
        _cell(record.served(index, clients, lambda one: one.p50_ms), 1),
        _cell(record.served(index, clients, lambda one: one.p99_ms), 1),
        _cell(record.served(index, clients, lambda one: one.server_cpu_ms), 2),
        _cell(record.served(index, clients, lambda one: one.client_cores), 2),
    ]


def _starts(record: Scale) -> list[str]:
    if not record.starts:
        return []
    headings = ["index", "start to ready, s", "reading, s", "start for one reading"]
    headings += ["beyond the tiny index, s", "of these for one reading"] if record.tiny else []
    shown = [*record.indexes, *([record.tiny] if record.tiny else [])]
    rows = [_start_row(record, one.name) for one in shown]
    return ["", "## Starting", "", *_table(headings, rows), "", _START_NOTES]


def _start_row(record: Scale, index: str) -> list[str]:
    cells = [
        index,
        _cell(record.started(index, lambda one: one.start_s), 2),
        _cell(record.started(index, lambda one: one.read_s), 3),
        _cell(record.started(index, lambda one: one.start_s / one.read_s), 2),
    ]
    if record.tiny is None:
        return cells
    if index == record.tiny.name:
        return [*cells, "-", "-"]
    return [*cells, _cell(record.added_s(index), 2), _cell(record.added_ratio(index), 2)]


def _memory(record: Scale) -> list[str]:
    found = [(index, memory) for index in record.indexes if (memory := record.last_memory(index.name))]
    if not found:
        return []
    headings = ["index", "server MiB", "own", "mapped", "bytes per passage", "of these own"]
    first = found[0]
    rows = [_memory_row(index, memory, first) for index, memory in found]
    together = [] if record.one_at_a_time else ["Libraries that the servers share are divided among them."]
    return ["", "## Memory", "", *_table(headings, rows), "", _MEMORY_NOTES, *together]


def _memory_row(index: ScaledIndex, memory: Memory, first: tuple[ScaledIndex, Memory]) -> list[str]:
    sizes = (memory.pss_bytes, memory.own_bytes, memory.mapped_bytes)
    more = index.passages - first[0].passages
    grown = (memory.pss_bytes - first[1].pss_bytes, memory.own_bytes - first[1].own_bytes)
    return [
        index.name,
        *(f"{size / _MIB:,.0f}" for size in sizes),
        *(f"{bytes_ / more:,.0f}" if more > 0 else "-" for bytes_ in grown),
    ]


def _failures(record: Scale) -> list[str]:
    if not record.failures:
        return []
    return ["", "## Not measured", "", *(f"- {failure.what}: {failure.reason}" for failure in record.failures)]


def _cell(spread: Spread | None, decimals: int) -> str:
    if spread is None:
        return "-"
    median, low, high = (f"{value:,.{decimals}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]
