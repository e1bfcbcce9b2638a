"""A record of prompt reuse as Markdown for people and JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tritonrag_perf.trace.prompt_reuse import ANSWER_TOKEN_MS, PROMPT_TOKEN_MS, Reuse, ReuseRecord

TITLE: Final = "Prompt tokens that a KV cache has already"
_HEADINGS: Final = ("cache", "layout", "reused", "of the trace's own", "requests/s", "over the trace's own")

_NOTES: Final = f"""\
- Arithmetic on the trace, so the same on every machine: no model ran. The cache uses prefixes again, block by block, forgets the
  least recently used, keeps no answers, and sees one request after the other (`tritonrag_perf/trace/kv_cache.py`).
- Layouts: `trace` as the trace has its prompts. The others put what is always the same first, then the passages, the history, what
  changes of the system prompt (it holds the time), and the question: with the passages by `rank`, `canonical` (by id), `popular`
  (used most so far first), or `followed` (on the way that most prompts which began alike went). `rank` and `canonical` are what
  `TRITONRAG_PROMPT_ORDER` sends. None knows what comes later.
- "requests/s": times those without any reuse, on a GPU that does nothing else and is never idle, where a prompt token costs
  {PROMPT_TOKEN_MS} ms and an answer's {ANSWER_TOKEN_MS} (Llama-3.1-8B in FP8 on an H200, from published throughputs)."""


def table_of(record: ReuseRecord) -> list[str]:
    """A row for every layout with every cache."""
    return [_line(_HEADINGS), _line(["---"] * len(_HEADINGS)), *(_line(_cells(row)) for row in record.rows)]


def markdown_of(record: ReuseRecord, *, command: str) -> str:
    """The page."""
    words = (
        f"{record.requests:,} requests with {record.prompt_tokens:,} prompt tokens"
        f" and {record.answer_tokens:,} answer tokens; blocks of {record.block_tokens}."
    )
    estimated = f"- The trace lacks the lengths of {', '.join(record.estimated)}: they are estimated"
    notes = [_NOTES, *([f"{estimated} (`tritonrag_perf/trace/lengths.py`)."] if record.estimated else [])]
    return "\n".join([f"# {TITLE}", "", f"    {command}", "", words, "", *table_of(record), "", *notes, ""])


def write_reuse_record(record: ReuseRecord, output: Path, *, name: str, command: str) -> list[Path]:
    """Write the JSON and the page; returns what was written."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    text = json.dumps({"command": command, **record.to_dict()}, indent=1, ensure_ascii=False)
    data.write_text(text + "\n", encoding="utf-8")
    page.write_text(markdown_of(record, command=command), encoding="utf-8")
    return [data, page]


def _cells(row: Reuse) -> Sequence[str]:
    return (
        "unbounded" if row.cache_tokens is None else f"{row.cache_tokens:,} tokens",
        f"`{row.layout}`",
        f"{row.percent:.1f} %",
        "-" if row.of_own is None else f"{row.of_own:.2f}x",
        f"{row.speed_up:.2f}x",
        f"{row.speed_up_of_own:.2f}x",
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
