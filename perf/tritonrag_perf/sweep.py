"""Measure models at several concurrencies with perf_analyzer, in interleaved rounds, and write the record.

    python -m tritonrag_perf.sweep --url HOST:GRPC_PORT --index DIR --output DIR [--models retrieve rag]
        [--concurrency 1 32] [--rounds 3]

writes NAME.json (every round), NAME.md (medians and ranges) and NAME.png into the output folder.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tritonrag_client.contract import RAG, RETRIEVE
from tritonrag_client.errors import RagError
from tritonrag_perf.corpus import load_passages
from tritonrag_perf.figures import Figures, Round
from tritonrag_perf.load import MODELS, Load, Plan, Windows
from tritonrag_perf.machine import Machine
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.plot import require_matplotlib, write_plot
from tritonrag_perf.questions import draw_questions, read_questions, write_input_data
from tritonrag_perf.report import write_json, write_markdown
from tritonrag_perf.server_time import ServerStatistics, stage_times

Progress = Callable[[int, int, Load], None]  # measurements done, measurements in all, the one that comes


def sweep(*, url: str, questions: Sequence[str], plan: Plan, origin: str, progress: Progress | None = None) -> Figures:
    """Measure `plan` against Triton's gRPC endpoint `url` ("host:port").

    `origin` says in the record where the questions come from.
    Raises NotFoundError where perf_analyzer is not to be had, UnavailableError where the server does not answer, and the
    first failing request's own error.
    """
    order = plan.order()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="tritonrag-perf-") as folder, ServerStatistics(url) as statistics:
        perf_analyzer = PerfAnalyzer.locate(Path(folder))
        for done, load in enumerate(order):
            if progress is not None:
                progress(done, len(order), load)
            input_data = Path(folder) / f"{load.model}.json"
            write_input_data(input_data, questions, load, stream=plan.stream, max_tokens=plan.max_tokens)
            rounds.append(_measure(perf_analyzer, statistics, load, plan.windows, url=url, input_data=input_data))
        server_version = statistics.server_version()
    return Figures(
        date=datetime.now(UTC).date().isoformat(),
        machine=Machine.this(),
        server_version=server_version,
        perf_analyzer_version=perf_analyzer.version,
        command=plan.command(),
        questions=f"{len(questions)} questions {origin}",
        stream=plan.stream,
        rounds=tuple(rounds),
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


def _measure(
    perf_analyzer: PerfAnalyzer,
    statistics: ServerStatistics,
    load: Load,
    windows: Windows,
    *,
    url: str,
    input_data: Path,
) -> Round:
    models = statistics.models_of(load.model)
    before = statistics.counters(models)
    measurement = perf_analyzer.run(load, windows, url=url, input_data=input_data)
    return Round(load=load, measurement=measurement, stages=stage_times(before, statistics.counters(models)))


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and the error's message where something is wrong."""
    options = _parser().parse_args(argv)
    try:
        for path in _run(options):
            print(path)  # noqa: T201 - a command's result
    except RagError as error:
        sys.exit(str(error))


def _run(options: argparse.Namespace) -> list[Path]:
    plan = Plan(
        models=tuple(options.models),
        concurrencies=tuple(options.concurrency),
        rounds=options.rounds,
        windows=Windows(
            window_s=options.window_s,
            window_requests=options.window_requests,
            stability_percent=options.stability_percent,
            percentile=options.percentile,
        ),
        stream=options.stream,
        max_tokens=options.max_tokens,
    )
    if options.plot:
        require_matplotlib()
    questions, origin = _questions(options)
    figures = sweep(url=options.url, questions=questions, plan=plan, origin=origin, progress=_show_progress)
    return write_record(figures, options.output, name=options.name, title=options.title, plot=options.plot)


def _questions(options: argparse.Namespace) -> tuple[list[str], str]:
    """The questions, and where they come from in words."""
    if options.questions is not None:
        return read_questions(options.questions), "from a file"
    passages = load_passages(options.index)
    questions = draw_questions(passages, count=options.count, seed=options.seed)
    return questions, f"drawn from the {len(passages):,} passages of the index (seed {options.seed})"


def _show_progress(done: int, total: int, load: Load) -> None:
    if sys.stderr.isatty():
        clients = f"{load.concurrency} client{'s' if load.concurrency > 1 else ''}"
        print(f"[{done + 1}/{total}] {load.model}, {clients}", file=sys.stderr)  # noqa: T201 - progress of a command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonrag_perf.sweep", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="Triton's gRPC endpoint, host:port")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path, help="index directory to draw questions from")
    source.add_argument("--questions", type=Path, help="text file with a question on each line")
    parser.add_argument("--output", type=Path, required=True, help="folder for the record")
    parser.add_argument("--name", default="first-figures", help="file name of the record, without ending")
    parser.add_argument("--title", default="First figures", help="heading of the page")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[RETRIEVE, RAG])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 32], help="numbers of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=2.0, help="length of a measurement window")
    parser.add_argument("--window-requests", type=int, help="end a window after so many requests instead")
    parser.add_argument("--stability-percent", type=float, default=25.0, help="how far three windows may differ")
    parser.add_argument("--percentile", type=int, help="judge stability by this percentile of latency, not the mean")
    parser.add_argument("--count", type=int, default=500, help="questions to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, help="tokens per answer; the server's default where not given")
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, default=True, help="stream the answers")
    parser.add_argument("--plot", action=argparse.BooleanOptionalAction, default=True)
    return parser


if __name__ == "__main__":
    main()
