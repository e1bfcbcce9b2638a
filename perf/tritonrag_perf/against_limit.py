"""Serving against the in-process limit, in one run with rounds interleaved: `python -m tritonrag_perf.against_limit`.

    python -m tritonrag_perf.against_limit --index DIR --output DIR [--clients 1 4 16 64] [--batched 32] [--rounds 5]

The limit is the same encoder and index in as many single-threaded processes as cores, with no server (tritonrag_perf.limit); it is
measured before and after each load of the server and the two are averaged, so that a machine that slows down slows both. The
retriever keeps no answers, so that a question asked twice is work twice. The client shares the server's cores, and its CPU time
is told. Writes DIR/NAME.md and DIR/NAME.json.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import RETRIEVE
from tritonrag_perf.against_limit_report import Against, Sample, write_against
from tritonrag_perf.command_line import told
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.limit import LimitRate, LimitWorkers
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.scrape_use import session_cpu_s
from tritonrag_perf.server_time import ServerStatistics

_LIMIT_BATCHES: Final = (32, 64)  # the limit is the better of the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides, ready: the processes of the limit, and a server with perf_analyzer for it."""

    workers: LimitWorkers
    perf_analyzer: PerfAnalyzer
    url: str
    pid: int
    folder: Path
    questions: QuestionSet
    seconds: float

    def sample(self, load: Load) -> Sample:
        """One load of the server between two measurements of the limit."""
        before = self._limit(load)
        with ServerStatistics(self.url) as statistics:
            asked, cpu_s = self._asked(statistics), session_cpu_s(self.pid)
            data = write_input_data(
                self.folder / "questions.json", self.questions.texts, load, stream=False, max_tokens=None
            )
            windows = Windows(window_s=self.seconds)
            measured = self.perf_analyzer.run(load, windows, url=self.url, input_data=data)
            asked, cpu_s = self._asked(statistics) - asked, session_cpu_s(self.pid) - cpu_s
        limits = (before, self._limit(load))
        return Sample(
            load=load,
            served_per_s=measured.requests_per_s,
            limit_per_s=sum(one.questions_per_s for one in limits) / 2,
            served_p50_ms=measured.latency.p50_ms,
            served_p99_ms=measured.latency.p99_ms,
            limit_p50_ms=sum(one.p50_ms for one in limits) / 2,
            server_cpu_ms=1e3 * cpu_s / max(asked, 1),
            limit_cpu_ms=sum(one.cpu_ms_a_question for one in limits) / 2,
            client_cores=measured.client_cores,
        )

    def _limit(self, load: Load) -> LimitRate:
        """What the cores give in batches; with a single client, who leaves no choice, question by question in one process."""
        if load.concurrency == load.batch == 1:
            return self.workers.measure("retrieve", batch=1, seconds=self.seconds, processes=1)
        rates = [self.workers.measure("retrieve", batch=b, seconds=self.seconds / 2) for b in _LIMIT_BATCHES]
        return max(rates, key=lambda rate: rate.questions_per_s)

    def _asked(self, statistics: ServerStatistics) -> int:
        return statistics.counters((RETRIEVE,))[RETRIEVE].inferences


def measure(
    settings: Settings, questions: QuestionSet, loads: Sequence[Load], *, rounds: int, seconds: float
) -> list[Sample]:
    """Every load in every round, every other round backwards; a first round, which warms both sides up, is thrown away."""
    with (
        tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder,
        LimitWorkers(settings, questions.texts, processes=len(os.sched_getaffinity(0))) as workers,
        TritonServer() as server,
    ):
        running = server.start(ServeOptions(settings=settings, open_apis=MEASURING_APIS))
        sides = Sides(
            workers=workers,
            perf_analyzer=PerfAnalyzer.locate(Path(folder)),
            url=running.grpc_url,
            pid=running.pid,
            folder=Path(folder),
            questions=questions,
            seconds=seconds,
        )
        sides.sample(loads[-1])
        order = [load for number in range(rounds) for load in (loads if number % 2 else reversed(loads))]
        return [sides.sample(load) for load in order]


def uncached_settings(index: Path, embedder: Path) -> Settings:
    """Settings with which a question that is asked twice is work twice."""
    return load_settings(
        {
            "TRITONRAG_INDEX": str(index),
            "TRITONRAG_EMBEDDER_MODEL": str(embedder),
            "TRITONRAG_RETRIEVER_CACHE_BYTES": "0",
        }
    )


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(prog="tritonrag_perf.against_limit", description=__doc__)
    parser.add_argument("--index", type=Path, default=Path(".tritonrag/demo-index"))
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help="with one question a request")
    parser.add_argument("--batched", type=int, default=32, help="questions a request of 4 more clients; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of the limit, and window")
    parser.add_argument("--count", type=int, default=500, help="questions, drawn from the index")
    parser.add_argument("--name", default="against-limit")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    settings = uncached_settings(options.index, options.embedder)
    loads = [Load(model=RETRIEVE, concurrency=clients) for clients in options.clients]
    if options.batched:
        loads.append(Load(model=RETRIEVE, concurrency=4, batch=options.batched))
    questions = questions_of_index(options.index, count=options.count, seed=0)
    samples = measure(settings, questions, loads, rounds=options.rounds, seconds=options.seconds)
    record = Against(
        machine=Machine.this(),
        questions=str(questions),
        samples=tuple(samples),
        command=told("tritonrag_perf.against_limit", sys.argv[1:]),
        measured=f"{datetime.now(UTC):%Y-%m-%d}",
    )
    for path in write_against(record, options.output, options.name):
        print(path)  # noqa: T201 - a command's result


if __name__ == "__main__":
    main()
