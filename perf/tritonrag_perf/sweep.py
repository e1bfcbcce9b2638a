"""Measure models at several concurrencies with perf_analyzer, in interleaved rounds, and write the record.

    python -m tritonrag_perf.sweep --url HOST:GRPC_PORT --index DIR --output DIR [--models retrieve rag]
        [--concurrency 1 32] [--rounds 3]

writes NAME.json (every round), NAME.md (medians and ranges) and NAME.png into the output folder.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tritonrag_client.contract import RAG, RETRIEVE
from tritonrag_client.errors import RagError, UnavailableError
from tritonrag_perf.corpus import QuestionSet, questions_of_file, questions_of_index
from tritonrag_perf.figures import Failure, Figures, Round
from tritonrag_perf.load import MODELS, Load, Plan, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.plot import require_matplotlib, write_plot
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.report import write_json, write_markdown
from tritonrag_perf.scrape_use import Watch, Watching
from tritonrag_perf.server_time import ServerStatistics, stage_times

_NOTHING_TO_SEE = Watch()
Progress = Callable[[int, int, Load], None]  # measurements done, measurements in all, the one that comes


def sweep(
    *,
    url: str,
    questions: QuestionSet,
    plan: Plan,
    watch: Watch = _NOTHING_TO_SEE,
    command: str | None = None,
    progress: Progress | None = None,
) -> Figures:
    """Measure `plan` against Triton's gRPC endpoint `url` ("host:port"), and what `watch` lets see of the server meanwhile.

    `command` None: this module's own, for the record.

    A measurement that fails is recorded with its reason and the others go on; once the server is gone, none does.
    Raises NotFoundError where perf_analyzer is not to be had, UnavailableError where the server does not answer from the
    start, and the first failure's own error where nothing was measured.
    """
    with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder, ServerStatistics(url) as statistics:
        perf_analyzer, server_version = PerfAnalyzer.locate(Path(folder)), statistics.server_version()
        measuring = _Measuring(
            url=url,
            folder=Path(folder),
            perf_analyzer=perf_analyzer,
            statistics=statistics,
            questions=questions,
            plan=plan,
            watch=watch,
        )
        rounds, failures = measuring.run(progress or _no_progress)
    return Figures(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        server_version=server_version,
        perf_analyzer_version=perf_analyzer.version,
        command=command or plan.command(questions.options),
        questions=str(questions),
        stream=plan.stream,
        rounds=tuple(rounds),
        failures=tuple(failures),
    )


def write_record(figures: Figures, output: Path, *, name: str, title: str, plot: bool) -> list[Path]:
    """Write the JSON, the Markdown page and, with `plot`, the picture; returns what was written."""
    if plot:
        require_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    json_path, page, picture = (output / f"{name}.{ending}" for ending in ("json", "md", "png"))
    write_json(json_path, figures)
    write_markdown(page, figures, title=title, plot=picture.name if plot else None)
    if not plot:
        return [json_path, page]
    write_plot(picture, figures)
    return [json_path, page, picture]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measuring:
    """One sweep at work. `folder` is for the input files."""

    url: str
    folder: Path
    perf_analyzer: PerfAnalyzer
    statistics: ServerStatistics
    questions: QuestionSet
    plan: Plan
    watch: Watch

    def run(self, progress: Progress) -> tuple[list[Round], list[Failure]]:
        """All loads in their order. Raises the first error where no round came to anything."""
        rounds: list[Round] = []
        failures: list[Failure] = []
        first: RagError | None = None
        order = self.plan.order()
        for done, load in enumerate(order):
            progress(done, len(order), load)
            try:
                rounds.append(self._measure(load))
            except RagError as error:
                first = first or error
                failures.append(Failure(load=load, reason=str(error)))
                if isinstance(error, UnavailableError):
                    break  # the server is gone: each of the rest would only wait for it in vain
        if first is not None and not rounds:
            raise first
        return rounds, failures

    def _measure(self, load: Load) -> Round:
        plan, input_data = self.plan, self.folder / f"{load.model}.json"
        write_input_data(input_data, self.questions.texts, load, stream=plan.stream, max_tokens=plan.max_tokens)
        models = self.statistics.models_of(load.model)
        before = self.statistics.counters(models)
        with Watching(self.watch) as watching:
            measurement = self.perf_analyzer.run(load, plan.windows, url=self.url, input_data=input_data)
        stages = stage_times(before, self.statistics.counters(models))
        use = watching.use(questions=load.batch * stages[0].requests)
        return Round(load=load, measurement=measurement, stages=stages, use=use)


def _no_progress(_done: int, _total: int, _load: Load) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong; what could be measured is written then too."""
    options = _parser().parse_args(argv)
    try:
        paths, figures = _run(options)
    except RagError as error:
        sys.exit(str(error))
    for path in paths:
        print(path)  # noqa: T201 - a command's result
    if figures.failures:
        sys.exit("\n".join(f"not measured: {failure}" for failure in figures.failures))


def _run(options: argparse.Namespace) -> tuple[list[Path], Figures]:
    plan = Plan(
        models=tuple(options.models),
        concurrencies=tuple(options.concurrency),
        rates_per_s=tuple(options.request_rate),
        batches=tuple(options.batch),
        rounds=options.rounds,
        windows=Windows(
            window_s=options.window_s,
            window_requests=options.window_requests,
            stability_percent=options.stability_percent,
            percentile=options.percentile,
            max_windows=options.max_windows,
        ),
        stream=options.stream,
        max_tokens=options.max_tokens,
    )
    if options.plot:
        require_matplotlib()
    if options.questions is not None:
        questions = questions_of_file(options.questions)
    else:
        questions = questions_of_index(options.index, count=options.count, seed=options.seed)
    watch = Watch(metrics=options.metrics_url)
    figures = sweep(url=options.url, questions=questions, plan=plan, watch=watch, progress=_show_progress)
    paths = write_record(figures, options.output, name=options.name, title=options.title, plot=options.plot)
    return paths, figures


def _show_progress(done: int, total: int, load: Load) -> None:
    if sys.stderr.isatty():
        print(f"[{done + 1}/{total}] {load}", file=sys.stderr)  # noqa: T201 - progress of a command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.sweep", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="Triton's gRPC endpoint, host:port")
    parser.add_argument("--metrics-url", help="Triton's metrics, host:port; recorded where given")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path, help="index directory to draw questions from")
    source.add_argument("--questions", type=Path, help="text file with a question on each line")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="first-figures", help="file name of the record, without ending")
    parser.add_argument("--title", default="First figures", help="heading of the page")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[RETRIEVE, RAG])
    parser.add_argument("--concurrency", nargs="*", type=int, default=[1, 32], help="numbers of clients")
    parser.add_argument("--request-rate", nargs="+", type=float, default=[], help="requests a second, an open loop")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], help="questions in a request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=2.0, help="length of a measurement window")
    parser.add_argument("--window-requests", type=int, help="end a window after so many requests instead")
    parser.add_argument("--stability-percent", type=float, default=25.0, help="how far three windows may differ")
    parser.add_argument("--percentile", type=int, help="judge stability by this percentile of latency, not the mean")
    parser.add_argument("--max-windows", type=int, default=6, help="give up on stability after so many windows")
    parser.add_argument("--count", type=int, default=500, help="questions to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, help="tokens per answer; the server's default where not given")
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, default=True, help="stream the answers")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    return parser


def exit_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal handler that unwinds, so that what was started is ended."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, exit_on_signal
    )  # unwinding ends perf_analyzer; dying on the spot would leave it running
    main()
