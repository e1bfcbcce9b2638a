"""Hours of mixed traffic: does anything grow? `python -m tritonrag_perf.soak`.

    python -m tritonrag_perf.soak --index DIR --minutes 60 --output DIR

serves a copy of the index, asks for searches, answers, streams, streams that are left and what is bad, changes the index now and
then, and looks every few seconds at what Triton and each of its processes hold. Writes NAME.json, NAME.md and NAME.png. Ends with
status 1 where something grows, or a request did not end as it should.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.settings import EmbedderSettings, Settings
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.command_line import told
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.machine import Machine
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.soak_report import Soak, verdict, write_soak
from tritonrag_perf.soak_samples import Sampler, take_sample
from tritonrag_perf.soak_traffic import ChangingCopy, Tally, traffic
from tritonrag_perf.sweep import exit_on_signal

_SAMPLES: Final = 10  # at least, after the warm-up


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how much, and how often. `change_s` 0: the index stays as it is."""

    minutes: float = 60.0
    warm_up_share: float = 0.25
    rate_per_s: float = 10.0
    sample_s: float = 5.0
    change_s: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        samples = 60 * self.minutes * (1 - self.warm_up_share) / self.sample_s
        if samples < _SAMPLES:
            raise BadRequestError(
                f"--minutes {self.minutes:g} with --sample-s {self.sample_s:g} make {max(0, int(samples))} samples after the"
                f" warm-up; give more minutes or sample more often, {_SAMPLES} are the fewest"
            )


def soak(plan: Plan, index: Path, embedder: Path, questions: QuestionSet, *, command: str) -> Soak:
    """Serve a copy of the index under traffic for as long as is planned. Raises RagError where the server does not start."""
    encoder = Encoder.open(embedder)
    with tempfile.TemporaryDirectory(prefix="tritonrag-soak-") as name, TritonServer() as server:
        copy = ChangingCopy(index, Path(name), encoder, seed=plan.seed)
        settings = Settings(index=copy.directory, embedder=EmbedderSettings(model=embedder))
        running = server.start(ServeOptions(settings=settings))
        sampler = Sampler(lambda at_s: take_sample(running, at_s), every_s=plan.sample_s)
        with traffic(running.grpc_url, questions.texts, rate_per_s=plan.rate_per_s, seed=plan.seed) as tally, sampler:
            _change_until_the_end(plan, copy, tally, sampler)
    return Soak(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        command=command,
        questions=str(questions),
        minutes=plan.minutes,
        warm_up_s=60 * plan.minutes * plan.warm_up_share,
        rate_per_s=plan.rate_per_s,
        requests=dict(tally.requests),
        failures=dict(tally.failures),
        changes=dict(tally.changes),
        named=tuple(tally.named),
        samples=tuple(sampler.samples),
        trouble=sampler.trouble,
    )


def _change_until_the_end(plan: Plan, copy: ChangingCopy, tally: Tally, sampler: Sampler) -> None:
    end_s = time.monotonic() + 60 * plan.minutes
    next_s = time.monotonic() + plan.change_s if plan.change_s else end_s
    while (now_s := time.monotonic()) < end_s and not sampler.trouble:
        if now_s >= next_s:
            copy.change(tally)
            next_s = now_s + plan.change_s
        _tell(end_s - now_s, tally)
        time.sleep(max(0.0, min(1.0, end_s - time.monotonic())))


def _tell(left_s: float, tally: Tally) -> None:
    """Progress on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{left_s / 60:6.1f} minutes left, {sum(tally.requests.values()):,} requests ")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, write the record, and exit with 1 where it is not all well."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        if not options.no_plot:
            require_matplotlib()
        plan = Plan(
            minutes=options.minutes,
            warm_up_share=options.warm_up_share,
            rate_per_s=options.rate,
            sample_s=options.sample_s,
            change_s=options.change_s,
            seed=options.seed,
        )
        questions = questions_of_index(options.index, count=options.count, seed=options.seed)
        command = told("tritonrag_perf.soak", arguments)
        found = soak(plan, options.index, options.embedder, questions, command=command)
        paths = write_soak(found, options.output, name=options.name, plot=not options.no_plot)
    except RagError as error:
        sys.exit(str(error))
    print(*paths, verdict(found), sep="\n")  # noqa: T201 - a command's result
    if found.growing() or found.failures or found.trouble:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.soak", description=(__doc__ or "").partition("\n")[0])
    plan = Plan()
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"), help="is copied, not changed")
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--minutes", type=float, default=plan.minutes)
    parser.add_argument("--warm-up-share", type=float, default=plan.warm_up_share, help="of the time, in no trend")
    parser.add_argument("--rate", type=float, default=plan.rate_per_s, help="requests a second")
    parser.add_argument("--sample-s", type=float, default=plan.sample_s, help="seconds between two looks")
    parser.add_argument(
        "--change-s", type=float, default=plan.change_s, help="seconds between changes of the index; 0: none"
    )
    parser.add_argument("--count", type=int, default=500, help="questions, drawn from the index")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--name", default="soak")
    parser.add_argument("--no-plot", action="store_true", help="without matplotlib")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the server; dying on the spot would leave it running
    main()
