"""The tail under load against the unloaded median: `python -m tritonrag_perf.open_loop`.

    python -m tritonrag_perf.open_loop --index DIR --output DIR [--model retrieve] [--share 0.7] [--clients 64] [--rounds 5]

starts a server and measures in each round: the median with one client, the maximum (the best of `--clients`, closed loop), and
p99 where requests come at random times (Poisson) at each share of that round's maximum. With `--model rag` answers are streamed
and the time to the first token counts. Writes NAME.json and NAME.md after every round.
"""

import argparse
import math
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_client.contract import RAG, RETRIEVE
from tritonrag_client.errors import BadRequestError, RagError, UnavailableError
from tritonrag_perf.against_limit import uncached_settings
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.measurement import Measurement, Percentiles
from tritonrag_perf.open_loop_report import FEWEST_REQUESTS, Closed, Lost, Open, OpenLoop, Round, best, write_open_loop
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.server_time import ServerStatistics
from tritonrag_perf.sweep import exit_on_signal

_WINDOWS: Final = 3  # of a measurement: the fewest that perf_analyzer takes
_AS_THEY_ARE: Final = 1e6  # per cent: to take the windows that happen to agree would be to leave out the tail
_LATE: Final = re.compile(r"(?P<percent>[\d.]+)% of the requests were delayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure. A measurement lasts `seconds`, an open loop longer where these hold fewer than `requests`.

    `threads` send the open loop; each has a stream of its own where the model streams. More of them send on time more often:
    with 4, one pair of runs on two busy cores had 5 % late at 200 requests/s, with 16 less than 1 %.
    """

    model: str = RETRIEVE
    clients: tuple[int, ...] = (64,)
    shares: tuple[float, ...] = (0.7,)
    rounds: int = 5
    seconds: float = 8.0
    requests: int = FEWEST_REQUESTS
    threads: int = 16

    def __post_init__(self) -> None:
        if self.model not in {RETRIEVE, RAG}:
            raise BadRequestError(f"the model is {self.model!r}; give {RETRIEVE} or {RAG}")
        if self.rounds < 1 or not self.clients or not self.shares:
            raise BadRequestError("nothing to measure; give at least one round, one number of clients and one share")
        for share in self.shares:
            if not 0 < share < math.inf:
                raise BadRequestError(f"the share is {share:g}; give a part of the maximum, above 0")
        _windows(self.seconds)  # refuses one that is too short

    def closed(self, clients: int) -> Load:
        """So many clients that wait for their answers."""
        return Load(model=self.model, concurrency=clients)

    def open(self, rate_per_s: float) -> Load:
        """So many requests a second, whatever is answered."""
        return Load(model=self.model, concurrency=self.threads, rate_per_s=rate_per_s)

    def windows(self, load: Load) -> Windows:
        """Windows for a measurement of `load`."""
        seconds = self.seconds if load.rate_per_s is None else max(self.seconds, self.requests / load.rate_per_s)
        return _windows(seconds)

    def command(self, questions: QuestionSet) -> str:
        """How to do it again, without the paths of one machine."""
        clients, shares = " ".join(map(str, self.clients)), " ".join(f"{share:g}" for share in self.shares)
        return (
            f"python -m tritonrag_perf.open_loop {questions.options} --output DIR --model {self.model} --share {shares} "
            f"--clients {clients} --rounds {self.rounds} --seconds {self.seconds:g} "
            f"--requests {self.requests} --threads {self.threads}"
        )


@dataclass(frozen=True, kw_only=True)
class ListeningPerfAnalyzer(PerfAnalyzer):
    """Keeps what the program printed last: how many requests it sent late stands nowhere else."""

    _printed: list[str] = field(default_factory=list, init=False)

    def _execute(self, command: list[str], *, limit_s: float) -> str | None:
        console = super()._execute(command, limit_s=limit_s)
        self._printed[:] = [console or ""]
        return console

    def late_percent(self) -> float | None:
        """The share of the last measurement's requests that were sent late; None below 1 %, of which it says nothing."""
        found = _LATE.search("".join(self._printed))
        return None if found is None else float(found["percent"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A server that runs, and what measures it. `failures` counts the requests that it has failed so far; `lost` grows."""

    plan: Plan
    perf_analyzer: ListeningPerfAnalyzer
    url: str
    folder: Path
    questions: Sequence[str]
    failures: Callable[[], int]
    lost: list[Lost] = field(default_factory=list)

    def rounds(self) -> Iterator[Round]:
        """Every round that came to something. Ends early where the server is gone."""
        for number in range(self.plan.rounds + 1):
            try:
                if number == 0:
                    self._warm_up()
                else:
                    yield self._round(number)
            except RagError as error:
                self._lose(number, "everything" if number else "the warm-up", error, failed=None)
                if isinstance(error, UnavailableError):
                    return

    def _warm_up(self) -> None:
        _tell("warming up")
        self._closed(max(self.plan.clients))

    def _round(self, number: int) -> Round:
        """Every other one goes backwards where it can, so that a machine that slows down favours neither side of the ratio."""
        _tell(f"round {number} of {self.plan.rounds}")
        forwards = number % 2 == 1
        before = self._closed(1) if forwards else None
        maxima = tuple(self._closed(clients) for clients in self.plan.clients)
        rate_per_s = best(maxima).requests_per_s
        shares = self.plan.shares if forwards else tuple(reversed(self.plan.shares))
        opened = [self._open(number, share, share * rate_per_s) for share in shares]
        return Round(unloaded=before or self._closed(1), maxima=maxima, opened=tuple(filter(None, opened)))

    def _closed(self, clients: int) -> Closed:
        load = self.plan.closed(clients)
        measured = self._run(load, self.plan.windows(load))
        latency = self._latency(measured)
        _tell(f"  {load}: {measured.requests_per_s:.1f}/s, p50 {latency.p50_ms:.1f} ms")
        return Closed(
            clients=clients,
            requests=measured.requests,
            requests_per_s=measured.requests_per_s,
            p50_ms=latency.p50_ms,
            p99_ms=latency.p99_ms,
            client_cores=measured.client_cores,
        )

    def _open(self, number: int, share: float, rate_per_s: float) -> Open | None:
        """None where a request failed, for perf_analyzer ends there. Raises UnavailableError where the server is gone."""
        load, failed = self.plan.open(rate_per_s), -self.failures()
        try:
            measured = self._run(load, self.plan.windows(load))
        except UnavailableError:
            raise
        except RagError as error:
            self._lose(number, f"{load}, {share:.0%} of the maximum", error, failed=failed + self.failures())
            return None
        latency = self._latency(measured)
        _tell(f"  {load}: {measured.requests_per_s:.1f}/s, p50 {latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms")
        return Open(
            share=share,
            asked_per_s=rate_per_s,
            requests=measured.requests,
            requests_per_s=measured.requests_per_s,
            p50_ms=latency.p50_ms,
            p99_ms=latency.p99_ms,
            late_percent=self.perf_analyzer.late_percent(),
            failed=failed + self.failures(),
            client_cores=measured.client_cores,
        )

    def _run(self, load: Load, windows: Windows) -> Measurement:
        data = write_input_data(self.folder / "questions.json", self.questions, load, stream=True, max_tokens=None)
        return self.perf_analyzer.run(load, windows, url=self.url, input_data=data)

    def _latency(self, measured: Measurement) -> Percentiles:
        return measured.first_response or measured.latency

    def _lose(self, number: int, what: str, error: RagError, *, failed: int | None) -> None:
        self.lost.append(Lost(round=number, load=what, failed=failed, reason=str(error)))
        _tell(f"  not measured: {self.lost[-1]}")


def measure(plan: Plan, index: Path, embedder: Path, questions: QuestionSet) -> Iterator[OpenLoop]:
    """The record after each round, and once more at the end. Raises what starting a server and the warm-up do."""
    with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as name, TritonServer() as server:
        running = server.start(ServeOptions(settings=uncached_settings(index, embedder), open_apis=MEASURING_APIS))
        found = PerfAnalyzer.locate(Path(name))
        with ServerStatistics(running.grpc_url) as statistics:
            bench = Bench(
                plan=plan,
                perf_analyzer=ListeningPerfAnalyzer(
                    binary=found.binary, libraries=found.libraries, version=found.version
                ),
                url=running.grpc_url,
                folder=Path(name),
                questions=questions.texts,
                failures=lambda: statistics.counters((plan.model,))[plan.model].failures,
            )
            yield from _records(bench, questions, statistics.server_version())


def _records(bench: Bench, questions: QuestionSet, server_version: str) -> Iterator[OpenLoop]:
    rounds: list[Round] = []

    def record() -> OpenLoop:
        return OpenLoop(
            date=datetime.now(UTC).date().isoformat(),
            machine=Machine.this(),
            server_version=server_version,
            perf_analyzer_version=bench.perf_analyzer.version,
            command=bench.plan.command(questions),
            questions=str(questions),
            model=bench.plan.model,
            rounds=tuple(rounds),
            lost=tuple(bench.lost),
        )

    for round_ in bench.rounds():
        rounds.append(round_)
        ratios = ", ".join(f"{round_.ratio(one):.1f} at {one.share:.0%}" for one in round_.opened)
        _tell(f"  p99 / unloaded p50: {ratios or 'not known'}")
        yield record()
    yield record()


def _windows(seconds: float) -> Windows:
    """Windows that make up so many seconds, all of which count."""
    return Windows(window_s=seconds / _WINDOWS, max_windows=_WINDOWS, stability_percent=_AS_THEY_ARE)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the record. Exits with 1 where something is wrong; what could be measured is written then too."""
    options = _parser().parse_args(argv)
    paths: list[Path] = []
    record: OpenLoop | None = None
    try:
        plan = Plan(
            model=options.model,
            clients=tuple(options.clients),
            shares=tuple(options.share),
            rounds=options.rounds,
            seconds=options.seconds,
            requests=options.requests,
            threads=options.threads,
        )
        questions = questions_of_index(options.index, count=options.count, seed=options.seed)
        for record in measure(plan, options.index, options.embedder, questions):
            paths = write_open_loop(record, options.output, options.name)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result
    if record is not None and record.lost:
        sys.exit("\n".join(f"not measured: {lost}" for lost in record.lost))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.open_loop", description=(__doc__ or "").partition("\n")[0])
    plan = Plan()
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--model", choices=(RETRIEVE, RAG), default=plan.model)
    parser.add_argument("--share", type=float, nargs="+", default=plan.shares, help="of the maximum, in an open loop")
    parser.add_argument("--clients", type=int, nargs="+", default=plan.clients, help="the best of these is the maximum")
    parser.add_argument("--rounds", type=int, default=plan.rounds)
    parser.add_argument("--seconds", type=float, default=plan.seconds, help="of a measurement, at least")
    parser.add_argument("--requests", type=int, default=plan.requests, help="of an open loop, at least")
    parser.add_argument("--threads", type=int, default=plan.threads, help="that send the open loop")
    parser.add_argument("--count", type=int, default=500, help="questions, drawn from the index")
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--name", default="open-loop")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the server; dying on the spot would leave it running
    main()
