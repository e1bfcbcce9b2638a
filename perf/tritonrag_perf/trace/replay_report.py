"""A replay's record as Markdown for people and JSON for programs."""

import json
from pathlib import Path
from typing import Final

from tritonrag_perf.trace.replay_record import LATE_MS, Quantiles, ReplayRecord

_NOTES: Final = """\
- Open loop: nothing waits for an answer. Latency counts from when a question was due, so what the sender was late is in it.
- Questions are as long as the trace's in tokens, of words of the index; a question that repeats is the same text. Histories and
  web searches of the trace are not sent, and no session is kept. Failures are in no latency."""


def markdown_of(record: ReplayRecord) -> str:
    """The page."""
    asked, window = record.asked, record.asked.window
    what = f"{asked.requests:,} requests of the trace from its second {window.start_s:g} on, {window.speed:g} times as fast"
    lines = [
        "# A trace replayed",
        "",
        f"Measured on {record.date}: {record.machine}.",
        f"{what}, sent to `{record.model}` when they were due.",
        "",
        f"    {record.command}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(record)),
        "",
        "| milliseconds | p50 | p90 | p99 | most |",
        "|---|---|---|---|---|",
        _row("from when it was due to the first of the answer", record.first),
        _row("from when it was due to the last", record.latency),
        _row("from when it was sent to the last", record.service),
        "",
        *_notes(record),
        "",
    ]
    return "\n".join(lines)


def write_replay_record(record: ReplayRecord, output: Path, *, name: str) -> list[Path]:
    """Write the JSON and the page; returns what was written."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(markdown_of(record), encoding="utf-8")
    return [data, page]


def _facts(record: ReplayRecord) -> list[tuple[str, str]]:
    failures = ", ".join(f"{count} {code}" for code, count in record.failures.items()) or "none"
    return [
        ("questions a second, due", f"{record.offered_per_s:.2f}"),
        ("answers a second", f"{record.answers_per_s:.2f}"),
        ("answers", f"{record.answers:,}, of which {record.degraded} degraded"),
        ("failures", failures),
        (f"sent more than {LATE_MS:g} ms late", f"{record.late}, at most {record.latest_ms:.1f} ms"),
        ("questions asked before", f"{record.asked.repeats} of {record.asked.requests}"),
        *(
            (f"{name} that a cache knew", f"{use.hits} of {use.asked}")
            for name, use in (record.caches or {}).items()
            if use.asked
        ),
        ("answers with a passage that the question was made of", f"{record.found} of {record.aimed}"),
    ]


def _row(name: str, of: Quantiles | None) -> str:
    values = ["-"] * 4 if of is None else [f"{value:,.1f}" for value in (of.p50, of.p90, of.p99, of.most)]
    return f"| {name} | {' | '.join(values)} |"


def _notes(record: ReplayRecord) -> list[str]:
    asked = record.asked
    notes = [_NOTES]
    if asked.unequal:
        notes.append(f"- {asked.unequal} texts have another number of tokens than the trace's question.")
    if asked.alike:
        notes.append(f"- {asked.alike} texts are those of another question, for want of words of the index.")
    if asked.shared_passages:
        notes.append(f"- The index is small: {asked.shared_passages} passages of the trace share one with another.")
    if record.caches is None:
        notes.append("- No metrics were read (`--metrics`), so what the server's caches knew is not told.")
    return notes
