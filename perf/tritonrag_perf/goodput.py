"""The highest rate of mixed traffic at which every limit is kept: `python -m tritonrag_perf.goodput`.

    python -m tritonrag_perf.goodput --url HOST:GRPC_PORT --index DIR --output DIR [--mix search=60,ask=10,stream=20,cancel=10]
        [--search-ms 250] [--first-token-ms 1000] [--answer-ms 5000] [--start 4] [--seconds 10]

raises the rate until a limit on p99, time to first token or errors breaks, and then halves what lies between; each step is a run of
perf/locust/mixed.py, an open loop. Writes NAME.json (every run) and NAME.md. A run of S seconds at R requests a second has S * R
requests, of which a 99th percentile leaves one in a hundred out: give it time.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag_client.errors import RagError
from tritonrag_perf.corpus import QuestionSet, questions_of_file, questions_of_index
from tritonrag_perf.goodput_locust import Traffic
from tritonrag_perf.goodput_report import GoodputRecord, write_record
from tritonrag_perf.goodput_run import Limits, TrafficRun
from tritonrag_perf.goodput_search import Range, find_highest
from tritonrag_perf.goodput_traffic import Mix
from tritonrag_perf.machine import Machine
from tritonrag_perf.sweep import exit_on_signal

_DEFAULTS: Final = Limits()


class Told:
    """Measures one rate after the other and says on a terminal what came of it."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._runs = 0

    def __call__(self, rate_per_s: float) -> TrafficRun:
        """One run at this rate."""
        run = self._traffic.run(rate_per_s, number=self._runs)
        self._runs += 1
        if sys.stderr.isatty():
            print(f"{rate_per_s:,.1f}/s: {'; '.join(run.broken) or 'holds'}", file=sys.stderr)  # noqa: T201 - progress
        return run


def measure(traffic: Traffic, within: Range, *, questions: str, command: str) -> GoodputRecord:
    """Search for the highest rate, and record every run. Raises what Traffic.run does."""
    return GoodputRecord(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=command,
        questions=questions,
        mix=str(traffic.mix),
        answer_model=traffic.answer_model,
        limits=traffic.limits,
        range=within,
        found=find_highest(Told(traffic), within),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong."""
    options = _parser().parse_args(argv)
    try:
        questions = _questions(options)
        record = measure(
            _traffic(options, questions),
            _range(options),
            questions=str(questions),
            command=_command(options, questions),
        )
        paths = write_record(record, options.output, name=options.name)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


def _questions(options: argparse.Namespace) -> QuestionSet:
    if options.questions is not None:
        return questions_of_file(options.questions)
    return questions_of_index(options.index, count=options.count, seed=options.seed)


def _traffic(options: argparse.Namespace, questions: QuestionSet) -> Traffic:
    return Traffic(
        url=options.url,
        questions=questions.texts,
        mix=Mix.parse(options.mix),
        limits=Limits(
            search_ms=options.search_ms,
            answer_ms=options.answer_ms,
            first_token_ms=options.first_token_ms,
            errors=options.errors,
            late_ms=options.late_ms,
        ),
        seconds=options.seconds,
        warm_up_s=options.warm_up_s,
        answer_model=options.answer_model,
        timeout_s=options.timeout_s,
        seed=options.seed,
    )


def _range(options: argparse.Namespace) -> Range:
    return Range(
        start=options.start,
        least=min(options.least, options.start),
        most=options.most,
        growth=options.growth,
        precision=options.precision,
        repeats=options.repeats,
    )


def _command(options: argparse.Namespace, questions: QuestionSet) -> str:
    """How to do it again, without the paths and ports of one machine."""
    told: tuple[str, ...] = (
        "search_ms",
        "answer_ms",
        "first_token_ms",
        "errors",
        "late_ms",
        "seconds",
        "warm_up_s",
        "timeout_s",
    )
    told += ("start", "least", "most", "growth", "precision", "repeats", "mix", "answer_model")
    values = {f"--{name.replace('_', '-')}": getattr(options, name) for name in told}
    given = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value is not None
    ]
    start = f"python -m tritonrag_perf.goodput --url HOST:GRPC_PORT {questions.options} --output DIR"
    return " ".join([start, *given])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.goodput", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="Triton's gRPC endpoint, host:port")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path, help="index directory to draw questions from")
    source.add_argument("--questions", type=Path, help="text file with a question on each line")
    parser.add_argument("--count", type=int, default=500, help="questions to draw")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="goodput", help="file name of the record, without ending")
    parser.add_argument("--mix", default=str(Mix()), help="weights of search, ask, stream, cancel")
    parser.add_argument("--answer-model", choices=("generator", "rag"), default="rag")
    parser.add_argument("--search-ms", type=float, default=_DEFAULTS.search_ms, help="limit on a search's p99")
    parser.add_argument("--answer-ms", type=float, default=_DEFAULTS.answer_ms, help="limit on an answer's p99")
    parser.add_argument("--first-token-ms", type=float, default=_DEFAULTS.first_token_ms, help="limit on its p99")
    parser.add_argument("--errors", type=float, default=_DEFAULTS.errors, help="share of requests that may fail")
    parser.add_argument("--late-ms", type=float, default=_DEFAULTS.late_ms, help="how late the client may send, p99")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run")
    parser.add_argument("--warm-up-s", type=float, default=2.0, help="what goes before it and does not count")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="when a request is given up")
    parser.add_argument("--start", type=float, default=4.0, help="the first rate, requests a second")
    parser.add_argument("--least", type=float, default=0.5)
    parser.add_argument("--most", type=float, default=2000.0)
    parser.add_argument("--growth", type=float, default=2.0, help="how much the rate is raised at a time")
    parser.add_argument(
        "--precision", type=float, default=0.1, help="share between the rates that hold and that do not"
    )
    parser.add_argument("--repeats", type=int, default=1, help="runs of a rate, of which the majority counts; odd")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends Locust; dying on the spot would leave it running
    main()
