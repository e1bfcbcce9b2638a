"""The record of `tritonrag_perf.faults`: every run as JSON, and medians and ranges as a page."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRun:
    """One fault, once. Seconds are counted from the fault; None is what did not come about in time.

    `found_s` is when the server said that it is not ready, `ready_s` when it said again that it is, `last_failure_s` when the
    last request that failed had begun (0 where none failed). `wrong` and `late` are answers that differ from the ones before, and
    requests that went on past their deadline.
    """

    fault: str
    found_s: float | None
    ready_s: float | None
    last_failure_s: float
    answered: int
    failed: int
    wrong: int
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRecord:
    """All runs so far."""

    date: str
    machine: Machine
    command: str
    rate_per_s: float
    deadline_s: float
    servers: int
    runs: tuple[FaultRun, ...]

    def faults(self) -> list[str]:
        """In the order in which they were measured first."""
        return list(dict.fromkeys(run.fault for run in self.runs))

    def of(self, fault: str) -> list[FaultRun]:
        """Every run of one."""
        return [run for run in self.runs if run.fault == fault]


def write_faults(record: FaultRecord, output: Path, name: str) -> list[Path]:
    """Write NAME.json and NAME.md; returns them."""
    output.mkdir(parents=True, exist_ok=True)
    data, page = output / f"{name}.json", output / f"{name}.md"
    data.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    page.write_text(render(record), encoding="utf-8")
    return [data, page]


def render(record: FaultRecord) -> str:
    """The page."""
    heading = ["fault", "runs", "found, s", "ready again, s", "last failure, s", "failed", "wrong", "late", "answered"]
    lines = [
        "# Faults under load",
        "",
        f"Measured on {record.date}: {record.machine}.",
        "",
        f"    {record.command}",
        "",
        f"| {' | '.join(heading)} |",
        "|---" * len(heading) + "|",
        *(_row(fault, record.of(fault)) for fault in record.faults()),
        "",
        *_setting(record),
        "- Seconds are counted from the fault: until the server says that it is not ready, until it says again that it is, and",
        "  until the last request began that failed. Medians, with the least and the greatest.",
        "- Failed, wrong, late and answered are sums over the runs. Wrong is an answer that is not the one given before the",
        "  fault, late a request that went on past its deadline: both must be 0.",
    ]
    return "\n".join(lines) + "\n"


def _setting(record: FaultRecord) -> list[str]:
    """Who is asked, and who asks."""
    load = f"{record.rate_per_s:g} requests/s to `embedder`, `retrieve`, `generator` and `rag` in turn"
    deadline = f"each with a deadline of {record.deadline_s:g} s"
    if record.servers == 1:
        return [f"- Each run has a `tritonrag serve` of its own under {load},", f"  {deadline} and no second try."]
    return [
        f"- Each run has {record.servers} `tritonrag serve` of its own on the same machine; the first is broken.",
        f"  {load}, {deadline},",
        "  by a client that knows every server and tries again as it does by default.",
    ]


def _row(fault: str, runs: list[FaultRun]) -> str:
    cells = [
        fault,
        str(len(runs)),
        _cell(run.found_s for run in runs),
        _cell(run.ready_s for run in runs),
        _cell(run.last_failure_s for run in runs),
        *(str(sum(getattr(run, name) for run in runs)) for name in ("failed", "wrong", "late", "answered")),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(values: Iterable[float | None]) -> str:
    given = list(values)
    known = [value for value in given if value is not None]
    lost = f", never in {len(given) - len(known)}" if len(known) < len(given) else ""
    if not known:
        return "never"
    spread = Spread.of(known)
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}){lost}"
