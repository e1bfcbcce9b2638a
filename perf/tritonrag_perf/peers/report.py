"""A run side by side as JSON for programs and a page for people."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tritonrag_perf.peers.contenders import OURS
from tritonrag_perf.peers.record import Sample, SideBySide
from tritonrag_perf.spread import Spread

_NONE: Final = "-"
_COLUMNS: Final[tuple[tuple[str, Callable[[Sample], float], str], ...]] = (
    ("questions/s", lambda s: s.questions_per_s, ".0f"),
    ("p50 ms", lambda s: s.p50_ms, ".1f"),
    ("p99 ms", lambda s: s.p99_ms, ".1f"),
    ("server CPU ms a question", lambda s: s.server_cpu_ms, ".2f"),
    ("client cores", lambda s: s.client_cores, ".2f"),
)
_NOTES: Final = """\
- Each figure is the median over the rounds, with the least and the greatest in brackets. Rounds were interleaved: each server was
  started, loaded and stopped once a round, every other round in reverse order.
- Ratios are taken round by round, ours over the peer's, with the same client. Above 1 we answer more.
- The client shares the cores with the server, and is the same for all: connections stay open, answers are read and not decoded.
- Start is the time to the first answer; memory is that of all the server's processes after the loads, what they share counted once.
- Recall is against exact search with the fp32 model; "exact" is the share of answers that are, but for rounding, those of exact
  search with the precision that the server has."""


def write_record(record: SideBySide, output: Path, *, name: str, title: str, plot: str | None) -> list[Path]:
    """Write NAME.json and NAME.md; `plot` is the file name of the picture beside them. Returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(record, title=title, plot=plot), encoding="utf-8")
    return [data, page]


def render(record: SideBySide, *, title: str, plot: str | None) -> str:
    """The page."""
    lines = [
        f"# {title}",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.questions}, {record.k} passages each, out of {record.passages:,}; the peers' index is {record.kind}.",
        "",
        f"    {record.command}",
        "",
        *([f"![Questions per second by number of clients]({plot})", ""] if plot else []),
        *_load_lines(record),
        *_ratio_lines(record),
        *_server_lines(record),
        _NOTES,
        *_warnings(record),
    ]
    return "\n".join(lines) + "\n"


def _load_lines(record: SideBySide) -> list[str]:
    head = ["server", "clients", *(title for title, _, _ in _COLUMNS)]
    rows = [
        [
            endpoint,
            str(clients),
            *(_cell(record.spread(endpoint, clients, figure), form) for _, figure, form in _COLUMNS),
        ]
        for clients in record.clients()
        for endpoint in record.endpoints()
        if record.spread(endpoint, clients, lambda s: s.questions_per_s)
    ]
    return ["## Loads", "", *_table(head, rows), ""]


def _ratio_lines(record: SideBySide) -> list[str]:
    ours, peers = _sides(record)
    if not ours or not peers:
        return []
    head = ["ours over", *(f"{mine}, {n} client{'s' if n > 1 else ''}" for mine in ours for n in record.clients())]
    rows = [
        [peer, *(_cell(record.ratio(mine, peer, n), ".2f") for mine in ours for n in record.clients())]
        for peer in peers
    ]
    return ["## Ratios", "", *_table(head, rows), ""]


def _server_lines(record: SideBySide) -> list[str]:
    rows = []
    for endpoint in record.endpoints():
        quality = record.quality(endpoint)
        checked = quality.checked if quality else None
        rows.append(
            [
                endpoint,
                quality.precision if quality else _NONE,
                f"{checked.recall_at_k:.4f}" if checked else _NONE,
                f"{checked.exact_share:.3f}" if checked else _NONE,
                _cell(record.start(endpoint, lambda s: s.started_s), ".1f"),
                _cell(record.start(endpoint, lambda s: s.memory_bytes / 2**20), ".0f"),
            ]
        )
    head = ["server", "encoder", f"recall@{record.k}", "exact", "start s", "memory MiB"]
    return ["## Answers, start, memory", "", *_table(head, rows), ""]


def _warnings(record: SideBySide) -> list[str]:
    ours, peers = _sides(record)
    unequal = record.unequal(peers, ours[0]) if ours else []
    lines = [f"- Not comparable, because its recall is not ours: {name}." for name in unequal]
    return lines + [
        f"- Not measured: {f.name}, round {f.round + 1}: {f.reason.splitlines()[0]}" for f in record.failures
    ]


def _sides(record: SideBySide) -> tuple[list[str], list[str]]:
    """Our endpoints and the others."""
    names = record.endpoints()
    ours = [name for name in names if name.startswith(OURS)]
    return ours, [name for name in names if name not in ours]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(spread: Spread | None, form: str) -> str:
    if spread is None:
        return _NONE
    return f"{spread.median:{form}} ({spread.low:{form}}-{spread.high:{form}})"
