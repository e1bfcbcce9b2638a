"""Serving, starting and memory over indexes of several sizes: `python -m tritonrag_perf.scale`.

    python -m tritonrag_perf.scale --index 10k=DIR --index 100k=DIR --index 1M=DIR [--tiny DIR] --output docs/benchmarks

The indexes are made beforehand, `tritonrag_perf.scaled_index` makes them. Three things are measured:

- starts: a server with each index in turn, nothing else running, from its start until it is ready, beside the time that it takes to
  read all bytes of the index from the page cache; with --tiny also a server with next to no index;
- `retrieve` with several numbers of clients, the same questions for all indexes, rounds interleaved: a server for each index is up
  all the time, or with --one-at-a-time the one that is measured alone. Nothing is cached, and ten passages come;
- memory of each server after each round.

Writes NAME.json, NAME.md and NAME.png into the folder --output, anew after each sample: what is broken off leaves what it has.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import RETRIEVE
from tritonrag_client.errors import BadRequestError, RagError
from tritonrag_perf.corpus import QuestionSet, questions_of_file, questions_of_index
from tritonrag_perf.load import Plan, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.scale_measure import Asker, measure_memory, measure_start, scale_settings
from tritonrag_perf.scale_record import Failure, Memory, Scale, ScaledIndex, Serving, Start
from tritonrag_perf.scale_report import write_scale
from tritonrag_perf.server_time import ServerStatistics
from tritonrag_perf.sweep import exit_on_signal

_TINY: Final = "tiny"
_Sample = Serving | Start | Memory
_T = TypeVar("_T")


class Bench:
    """Takes samples into `record`, and hands the record to `keep` after each; a sample that fails stands in it as a failure."""

    def __init__(self, record: Scale, keep: Callable[[Scale], object]) -> None:
        self.record = record
        self._keep = keep

    def take(self, what: str, sample: Callable[[], _Sample]) -> None:
        """One sample, `what` in words."""
        taken: _Sample | Failure
        try:
            taken = sample()
        except RagError as error:
            taken = Failure(what=what, reason=str(error))
        self.record = self.record.with_sample(taken)
        _tell(f"{what}: {_in_words(taken)}")
        self._keep(self.record)

    def measure_starts(self, indexes: Mapping[str, Settings], *, rounds: int) -> None:
        """Start with each index in every round, every other round backwards. One start before is thrown away: programs are cold.

        Raises what that one raises.
        """
        if rounds:
            name, settings = next(iter(indexes.items()))
            _tell(f"a first start, with {name}, that is not counted")
            measure_start(settings, number=0, index=name)
        for number in range(1, rounds + 1):
            for name in _turned(list(indexes), number):
                what = f"start {number} of {rounds}, {name}"
                self.take(what, lambda name=name, n=number: measure_start(indexes[name], number=n, index=name))  # type: ignore[misc]

    def measure_together(
        self, indexes: Mapping[str, Settings], asker: Asker, clients: Sequence[int], *, rounds: int
    ) -> None:
        """All servers up; at each number of clients one index right after the other."""
        with ExitStack() as stack:
            servers = {
                name: self._started(stack, asker, name, settings, max(clients)) for name, settings in indexes.items()
            }
            for number in range(1, rounds + 1):
                for count in _turned(clients, number):
                    for name in _turned(list(servers), number):
                        self._take_serving(asker, servers[name], name, count, number)
                for name, running in servers.items():
                    self._take_memory(running, name, number)

    def measure_apart(
        self, indexes: Mapping[str, Settings], asker: Asker, clients: Sequence[int], *, rounds: int
    ) -> None:
        """One server up, for one index after the other in every round."""
        for number in range(1, rounds + 1):
            for name in _turned(list(indexes), number):
                with ExitStack() as stack:
                    running = self._started(stack, asker, name, indexes[name], max(clients))
                    for count in _turned(clients, number):
                        self._take_serving(asker, running, name, count, number)
                    self._take_memory(running, name, number)

    def _started(self, stack: ExitStack, asker: Asker, name: str, settings: Settings, clients: int) -> RunningServer:
        """A server that has been asked a while: what is done once is not measured. Raises what a start and a load raise."""
        _tell(f"starting and warming up a server with {name}")
        running = stack.enter_context(TritonServer()).start(ServeOptions(settings=settings, open_apis=MEASURING_APIS))
        with ServerStatistics(running.grpc_url) as statistics:
            triton = statistics.server_version()
        self.record = replace(self.record, software=f"Triton {triton}, perf_analyzer {asker.perf_analyzer.version}")
        asker.serving(running, number=0, index=name, clients=clients)
        return running

    def _take_serving(self, asker: Asker, running: RunningServer, name: str, clients: int, number: int) -> None:
        what = f"round {number}, {name} at {clients} client{'s' if clients > 1 else ''}"
        self.take(what, lambda: asker.serving(running, number=number, index=name, clients=clients))

    def _take_memory(self, running: RunningServer, name: str, number: int) -> None:
        what = f"round {number}, memory of {name}"
        self.take(what, lambda: measure_memory(running.pid, number=number, index=name))


def _turned(things: Sequence[_T], number: int) -> Iterator[_T]:
    """In order in odd rounds, backwards in even ones, so that a drift favours none."""
    return iter(things) if number % 2 else reversed(things)


def _in_words(sample: _Sample | Failure) -> str:
    match sample:
        case Serving():
            return f"{sample.questions_per_s:,.0f} questions/s, p50 {sample.p50_ms:.1f} ms, p99 {sample.p99_ms:.1f} ms"
        case Start():
            return f"ready after {sample.start_s:.2f} s, read in {sample.read_s:.2f} s"
        case Memory():
            return f"{sample.pss_bytes / 2**20:,.0f} MiB"
    return f"FAILED: {sample.reason}"


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def named_index(text: str) -> tuple[str, Path]:
    """NAME=DIR. Raises BadRequestError where it is not that."""
    name, equals, directory = text.partition("=")
    if not (name and equals and directory) or name == _TINY:
        raise BadRequestError(f"--index is {text!r}; give a name, which is not {_TINY!r}, and the folder as NAME=DIR")
    return name, Path(directory)


def named_indexes(texts: Sequence[str]) -> dict[str, Path]:
    """All of them, in order. Raises BadRequestError, also for a name that comes twice."""
    indexes = dict(map(named_index, texts))
    if len(indexes) < len(texts):
        raise BadRequestError(f"an index's name comes twice in {' '.join(texts)}; give each its own")
    return indexes


def run(options: argparse.Namespace) -> list[Path]:
    """Measure; what was written. Raises what is wrong with an index, a question file or a server that does not start."""
    directories = named_indexes(options.index)
    questions = _questions(options, next(iter(directories.values())))
    record = Scale(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        software="",
        questions=str(questions),
        command=command(options, questions),
        one_at_a_time=options.one_at_a_time,
        indexes=tuple(ScaledIndex.read(name, path) for name, path in directories.items()),
        tiny=None if options.tiny is None else ScaledIndex.read(_TINY, options.tiny),
    )
    if options.plot:
        require_matplotlib()
    bench = Bench(record, lambda kept: write_scale(kept, options.output, name=options.name, plot=False))
    started = directories if options.tiny is None else {_TINY: options.tiny, **directories}
    bench.measure_starts(_settings(started, options.embedder), rounds=options.starts)
    if options.rounds:
        _measure_serving(bench, _settings(directories, options.embedder), questions, options)
    return write_scale(bench.record, options.output, name=options.name, plot=options.plot)


def _measure_serving(
    bench: Bench, indexes: Mapping[str, Settings], questions: QuestionSet, options: argparse.Namespace
) -> None:
    windows = Windows(window_s=options.window_s)
    plan = Plan(models=(RETRIEVE,), concurrencies=tuple(options.clients), rounds=options.rounds, windows=windows)
    least, most = (len(indexes) * seconds / 60 for seconds in plan.expected_s())
    _tell(f"serving takes {least:.0f} to {most:.0f} minutes, and the servers' starts")
    with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder:
        asker = Asker(
            perf_analyzer=PerfAnalyzer.locate(Path(folder)),
            windows=windows,
            questions=questions.texts,
            folder=Path(folder),
        )
        measure = bench.measure_apart if options.one_at_a_time else bench.measure_together
        measure(indexes, asker, options.clients, rounds=options.rounds)


def _settings(directories: Mapping[str, Path], embedder: Path) -> dict[str, Settings]:
    return {name: scale_settings(path, embedder) for name, path in directories.items()}


def _questions(options: argparse.Namespace, first: Path) -> QuestionSet:
    """Those of a file, else some about the first index's passages: an index out of `scaled_index` that is larger has them too."""
    if options.questions is not None:
        return questions_of_file(options.questions)
    drawn = questions_of_index(first, count=options.count, seed=0)
    return replace(drawn, origin=drawn.origin.replace("of the index", "of the first index"))


def command(options: argparse.Namespace, questions: QuestionSet) -> str:
    """How to do it again, without the paths of one machine."""
    source = questions.options if options.questions is not None else f"--count {options.count}"
    parts = [
        *(f"--index {name}=DIR" for name in named_indexes(options.index)),
        *(["--tiny DIR"] if options.tiny is not None else []),
        f"--clients {' '.join(map(str, options.clients))}",
        f"--rounds {options.rounds} --starts {options.starts} --window-s {options.window_s:g} {source}",
        *(["--one-at-a-time"] if options.one_at_a_time else []),
    ]
    return f"python -m tritonrag_perf.scale {' '.join(parts)} --output DIR"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--index", action="append", required=True, metavar="NAME=DIR", help="smallest first")
    parser.add_argument("--tiny", type=Path, help="index of next to nothing, to start a server with")
    parser.add_argument("--embedder", type=Path, default=Path(".tritonrag/embedder"))
    parser.add_argument("--clients", type=_positive, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3, help="of serving; 0: none")
    parser.add_argument("--starts", type=int, default=5, help="with each index; 0: none")
    parser.add_argument("--window-s", type=float, default=2.0, help="of perf_analyzer, which takes three and more")
    parser.add_argument("--one-at-a-time", action="store_true", help="no other server is up: less memory, more starts")
    parser.add_argument("--questions", type=Path, help="a file of questions; else some are drawn from the first index")
    parser.add_argument("--count", type=int, default=500, help="questions to draw")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--name", default="scale", help="file name of the record, without ending")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong; what was measured until then is written."""
    options = _parser().parse_args(argv)
    try:
        paths = run(options)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)  # unwinding ends the servers
    main()
