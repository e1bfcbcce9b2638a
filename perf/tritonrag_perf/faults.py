"""Faults under load, how soon they are found and mended, and what clients see: `python -m tritonrag_perf.faults`.

    python -m tritonrag_perf.faults --index DIR --embedder DIR --output DIR [--runs 5] [--fault NAME ...] [--rate 20] [--servers 1]

starts a `tritonrag serve` for each run, breaks one thing in it, and watches its health and its answers. With more servers the first
is broken, and clients know them all and try again as they do by default. Writes NAME.json and NAME.md after every run.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag_client import BadRequestError, RagError, RetryPolicy
from tritonrag_perf.faults_load import ONCE, Load, take_references
from tritonrag_perf.faults_report import FaultRecord, FaultRun, write_faults
from tritonrag_perf.faults_served import FAULTS, Served, serving, until
from tritonrag_perf.machine import Machine
from tritonrag_perf.sweep import exit_on_signal

_FOUND_S: Final = 30.0  # after so long it counts as not found
_READY_S: Final = 60.0  # and as not mended
_BEFORE_S: Final = 2.0  # of load before the fault
_AFTER_S: Final = 3.0  # and after the server says that it is ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    faults: tuple[str, ...] = tuple(FAULTS)
    runs: int = 5
    rate_per_s: float = 20.0
    deadline_s: float = 5.0
    servers: int = 1

    def __post_init__(self) -> None:
        for fault in self.faults:
            if fault not in FAULTS:
                raise BadRequestError(f"the fault is {fault!r}; give some of {', '.join(FAULTS)}")
        if self.runs < 1 or self.servers < 1 or not self.faults:
            raise BadRequestError(
                f"runs is {self.runs}, servers is {self.servers}; give at least one of each, and at least one fault"
            )
        if not (self.rate_per_s > 0 and self.deadline_s > 0):
            raise BadRequestError("the rate and the deadline are numbers above 0; give such")

    def command(self) -> str:
        """How to do it again, without the paths of one machine."""
        faults = "" if self.faults == tuple(FAULTS) else f" --fault {' '.join(map(repr, self.faults))}"
        servers = "" if self.servers == 1 else f" --servers {self.servers}"
        return (
            f"python -m tritonrag_perf.faults --index DIR --embedder DIR --output DIR --runs {self.runs}"
            f" --rate {self.rate_per_s:g} --deadline {self.deadline_s:g}{servers}{faults}"
        )


def measure(plan: Plan, index: Path, embedder: Path) -> Iterator[FaultRecord]:
    """The record after each run; the faults take turns, so that a machine that slows down favours none. Raises RagError."""
    runs: list[FaultRun] = []
    for number in range(1, plan.runs + 1):
        for fault in plan.faults:
            _tell(f"run {number} of {plan.runs}: {fault}")
            with ExitStack() as stack:
                servers = [stack.enter_context(serving(index, embedder)) for _ in range(plan.servers)]
                runs.append(run_once(plan, servers, fault))
            _tell(f"  {runs[-1]}")
            yield FaultRecord(
                date=datetime.now(UTC).date().isoformat(),
                machine=Machine.this(),
                command=plan.command(),
                rate_per_s=plan.rate_per_s,
                deadline_s=plan.deadline_s,
                servers=plan.servers,
                runs=tuple(runs),
            )


def run_once(plan: Plan, servers: Sequence[Served], fault: str) -> FaultRun:
    """Break the first under load, and watch until it is well again. Raises RagError where it was not well before."""
    broken = servers[0]
    references = take_references(broken.grpc_url)
    urls, retry = [served.grpc_url for served in servers], ONCE if len(servers) == 1 else RetryPolicy()
    with Load(urls, references, rate_per_s=plan.rate_per_s, deadline_s=plan.deadline_s, retry=retry) as load:
        time.sleep(_BEFORE_S)
        began_s = time.monotonic()
        FAULTS[fault](broken)
        found_s = until(lambda: not broken.is_ready(), _FOUND_S)
        waited_s = None if found_s is None else until(broken.is_ready, _READY_S)
        time.sleep(_AFTER_S)
    tally = load.tally
    failed = tally.failed()
    return FaultRun(
        fault=fault,
        found_s=found_s,
        ready_s=None if found_s is None or waited_s is None else found_s + waited_s,
        last_failure_s=max((one.began_s - began_s for one in failed), default=0.0),
        answered=len(tally.answered()),
        failed=len(failed),
        wrong=len(tally.wrong()),
        late=len(tally.late()),
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the record. Exits with 1 where an answer was wrong, or a request went on past its deadline."""
    options = _parser().parse_args(argv)
    paths: list[Path] = []
    record: FaultRecord | None = None
    try:
        plan = Plan(
            faults=tuple(options.fault),
            runs=options.runs,
            rate_per_s=options.rate,
            deadline_s=options.deadline,
            servers=options.servers,
        )
        for record in measure(plan, options.index, options.embedder):
            paths = write_faults(record, options.output, options.name)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result
    if record is not None and any(run.wrong or run.late or run.ready_s is None for run in record.runs):
        sys.exit("an answer was wrong, a request late, or a server not mended")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.faults", description=(__doc__ or "").partition("\n")[0])
    plan = Plan()
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--fault", nargs="+", default=plan.faults, help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--runs", type=int, default=plan.runs, help="of each fault")
    parser.add_argument("--rate", type=float, default=plan.rate_per_s, help="requests a second")
    parser.add_argument("--deadline", type=float, default=plan.deadline_s, help="seconds of a request")
    parser.add_argument("--servers", type=int, default=plan.servers, help="how many serve; the first is broken")
    parser.add_argument("--name", default="faults")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the server; dying on the spot would leave it running
    main()
