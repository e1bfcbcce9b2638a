"""The record of a search for goodput: every run as JSON, and a page for people."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tritonrag_perf.goodput_run import Limits, TrafficRun, thin
from tritonrag_perf.goodput_search import Found, Range
from tritonrag_perf.machine import Machine

_NOTES = """\
- Open loop: requests come due at random times (Poisson) whatever is answered, and every time counts from when a request was due, so
that a server or client that falls behind is not spared; "late" is how late the client sent.
- "goodput" is the requests a second that met every limit that is for them.
- `cancel` streams an answer and leaves after its first piece. A request that fails is not tried again.
- The client shares the cores with the server; "cores" is what Locust took of them, its start included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputRecord:
    """A search. `questions` says in words what was asked, `command` how to do it again."""

    date: str
    machine: Machine
    command: str
    questions: str
    mix: str
    answer_model: str
    limits: Limits
    range: Range
    found: Found[TrafficRun]


def write_record(record: GoodputRecord, output: Path, *, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: GoodputRecord) -> str:
    """The page, in Markdown."""
    lines = [
        "# Goodput of mixed traffic",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{record.questions}; mix {record.mix}, answers by `{record.answer_model}`. Limits: {_limits(record.limits)}.",
        "",
        f"    {record.command}",
        "",
        verdict(record.found),
        "",
        "| rate | offered | goodput | holds | search p99 ms | answer p99 ms | first p99 ms | late p99 ms | cores | errors |",
        "|---" * 10 + "|",
        *(_row(run) for run in _runs(record.found)),
        "",
        _NOTES,
        *_thin_notes(record.found),
        *(f"- At {run.rate_per_s:,.1f}/s: {'; '.join(run.broken)}." for run in _runs(record.found) if run.broken),
    ]
    return "\n".join(lines) + "\n"


def verdict(found: Found[TrafficRun]) -> str:
    """The result in a sentence or two."""
    if found.highest is None:
        lowest = min(step.rate_per_s for step in found.steps)
        return f"**No rate held**, down to {lowest:,.1f} requests a second."
    goodput = found.highest.runs[-1].goodput_per_s
    held = (
        f"**{found.highest.rate_per_s:,.1f} requests a second** held, of which {goodput:,.1f} a second met every limit."
    )
    if found.ended == "most":
        return f"{held} No higher rate was allowed to be tried: the server may take more."
    missed = min((step for step in found.steps if not step.holds), key=lambda step: step.rate_per_s)
    reasons = next(run.broken for run in missed.runs if run.broken)
    return f"{held} At {missed.rate_per_s:,.1f}: {'; '.join(reasons)}."


def _runs(found: Found[TrafficRun]) -> Iterator[TrafficRun]:
    for step in sorted(found.steps, key=lambda step: step.rate_per_s):
        yield from step.runs


def _row(run: TrafficRun) -> str:
    tails = {tail.operation: tail for tail in run.tails}
    answers = [tail.p99_ms for name, tail in tails.items() if name in {"ask", "stream"} and tail.p99_ms is not None]
    first = [tail.first_p99_ms for tail in tails.values() if tail.first_p99_ms is not None]
    cells = [
        f"{run.rate_per_s:,.1f}/s",
        f"{run.offered_per_s:,.1f}/s",
        f"{run.goodput_per_s:,.1f}/s",
        "yes" if run.holds else "no",
        _ms(tails["search"].p99_ms if "search" in tails else None),
        _ms(max(answers, default=None)),
        _ms(max(first, default=None)),
        _ms(run.late_p99_ms),
        f"{run.client_cores:.2f}",
        ", ".join(f"{count} {code}" for code, count in run.errors.items()) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def _thin_notes(found: Found[TrafficRun]) -> list[str]:
    few = sorted({operation for run in _runs(found) for operation in thin(run)})
    return [f"- Too few requests in some runs for their tail to say much: {', '.join(few)}."] if few else []


def _limits(limits: Limits) -> str:
    named = (
        ("search p99", limits.search_ms),
        ("answer p99", limits.answer_ms),
        ("first token p99", limits.first_token_ms),
        ("lateness of the client p99", limits.late_ms),
    )
    told = [f"{name} {value:g} ms" for name, value in named if value is not None]
    return ", ".join([*told, f"errors {limits.errors:.1%}"])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
