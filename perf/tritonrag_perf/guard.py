"""Serving against the in-process limit, beside the numbers to reach: `make bench-guard`. For people on a quiet machine.

    python -m tritonrag_perf.guard [--index DIR] [--embedder DIR] [--rounds 5]

Runs tritonrag_perf.against_limit at 64 clients and with 32 questions a request. Its result is a table and never a failure: ends in
status 1 only where it could not measure.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tritonrag_client.contract import RETRIEVE
from tritonrag_client.errors import RagError
from tritonrag_perf.against_limit import measure, uncached_settings
from tritonrag_perf.against_limit_report import Against
from tritonrag_perf.corpus import questions_of_index
from tritonrag_perf.load import Load
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread
from tritonrag_perf.sweep import exit_on_signal

# What is to be reached of the limit: DESIGN.md, section 6.
TO_REACH: Final = {
    Load(model=RETRIEVE, concurrency=64): 0.72,
    Load(model=RETRIEVE, concurrency=4, batch=32): 0.92,
}


def render(record: Against) -> str:
    """A line for each load: the median ratio, its spread over the rounds, and what is to be reached."""
    lines = [f"{record.machine}. {record.questions}.", "Questions a second served, for one of the in-process limit's:"]
    return "\n".join([*lines, *(_line(load, record.spread(load, lambda s: s.ratio)) for load in record.loads())])


def _line(load: Load, ratio: Spread) -> str:
    to_reach = TO_REACH[load]
    return (
        f"  {load!s:<48} {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})  "
        f"to reach {to_reach:.2f}: {_judge(ratio, to_reach)}"
    )


def _judge(ratio: Spread, to_reach: float) -> str:
    """In words; the rounds decide whether it is clear."""
    if ratio.low >= to_reach:
        return "reached"
    if ratio.high < to_reach:
        return "not reached"
    return "reached at the median, not in every round" if ratio.median >= to_reach else "not reached at the median"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.guard", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of the limit, and window")
    parser.add_argument("--count", type=int, default=500, help="questions, drawn from the index")
    options = parser.parse_args(argv)
    try:
        questions = questions_of_index(options.index, count=options.count, seed=0)
        settings = uncached_settings(options.index, options.embedder)
        samples = measure(settings, questions, tuple(TO_REACH), rounds=options.rounds, seconds=options.seconds)
    except RagError as error:
        sys.exit(f"could not measure: {error}")
    print(render(Against(machine=Machine.this(), questions=str(questions), samples=tuple(samples))))  # noqa: T201


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the server and the limit's processes
    main()
