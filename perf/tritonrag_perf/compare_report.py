"""A comparison of two runs as a Markdown table for people and JSON for programs."""

import json
from dataclasses import asdict
from statistics import median
from typing import Final

from tritonrag_perf.compare import Change, Compared, Comparison
from tritonrag_perf.compare_record import Figure

_HEADINGS: Final[dict[Figure, str]] = {
    "questions_per_s": "questions/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "server_cpu_ms": "server CPU ms",
}
_MARKS: Final = {True: "better", False: "worse", None: "~"}


def as_text(comparison: Comparison) -> str:
    """The verdicts, and for each figure OLD, NEW, their ratio with its range, and p."""
    rule = comparison.rule
    stated = (
        f"Better or worse: p at most {rule.alpha:g} (exact Mann-Whitney on the rounds) and a ratio of {1 + rule.least_effect:g} "
        "or more either way; else within noise (~)."
    )
    lines = [
        stated,
        *(f"Compared although they differ: {difference}." for difference in comparison.differences),
        "",
        "| load | verdict | figure | old | new | new/old (range) | p | |",
        "|---|---|---|---|---|---|---|---|",
        *(row for one in comparison.compared for row in _rows(one)),
    ]
    notes = [f"- {one.load}: {note}." for one in comparison.compared for note in one.notes]
    notes += [f"- Only in the old run: {load}." for load in comparison.only_old]
    notes += [f"- Only in the new run: {load}." for load in comparison.only_new]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _rows(one: Compared) -> list[str]:
    heads = [f"{one.load} | **{one.verdict}**", *(" | " for _ in one.changes[1:])]
    return [f"| {head} | {_cells(change)} |" for head, change in zip(heads, one.changes, strict=True)]


def _cells(change: Change) -> str:
    spread = f"{change.ratio:.3f} ({change.lowest:.3f} to {change.highest:.3f})"
    sides = f"{median(change.old):,.4g} | {median(change.new):,.4g}"
    return f"{_HEADINGS[change.figure]} | {sides} | {spread} | {change.p:.3f} | {_MARKS[change.better]}"


def as_json(comparison: Comparison) -> str:
    """All of it, with every round."""
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False)
