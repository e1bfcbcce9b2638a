"""`tritonrag bench`: perf_analyzer against a Triton of our own (or a running one), and the record of what it measured."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import typer

from tritonrag.admin_key import MEASURING_APIS
from tritonrag.launcher import TritonServer
from tritonrag.preflight import look_at
from tritonrag.settings import settings_from
from tritonrag.terminal import Steps, bold, open_steps, tell, write, write_json
from tritonrag.triton_command import ServeOptions
from tritonrag_perf.corpus import QuestionSet, questions_of_file, questions_of_index
from tritonrag_perf.figures import Figures
from tritonrag_perf.load import Load, Plan, Windows
from tritonrag_perf.perf_analyzer_setup import find_binary
from tritonrag_perf.plot import require_matplotlib
from tritonrag_perf.scrape_use import Watch
from tritonrag_perf.sweep import sweep, write_record

TITLE = "First figures"
_QUICK_ROUNDS, _ROUNDS = 1, 3
_QUICK_WINDOW_S, _WINDOW_S = 0.5, 2.0  # three windows make a measurement
_CLIENTS = (1, 32)
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """The options of `tritonrag bench` as they were given. `url` None: a Triton of our own, on free ports.

    `clients` None: 1 and 32, but none where `request_rates` are given. `metrics_url` is for a server that is not ours.
    `rounds` and `window_s` None: few and short ones with `quick`, else what a record needs.
    """

    output: Path
    name: str = "first-figures"
    index: Path | None = None
    embedder: Path | None = None
    url: str | None = None
    metrics_url: str | None = None
    questions: Path | None = None
    count: int = 500
    models: tuple[str, ...]
    clients: tuple[int, ...] | None = None
    request_rates: tuple[float, ...] = ()
    batches: tuple[int, ...] = (1,)
    rounds: int | None = None
    window_s: float | None = None
    quick: bool = False
    plot: bool = True
    json: bool = False

    def plan(self) -> Plan:
        """What to measure. Raises BadRequestError for what can't be measured."""
        rounds = _QUICK_ROUNDS if self.quick else _ROUNDS
        window_s = _QUICK_WINDOW_S if self.quick else _WINDOW_S
        return Plan(
            models=self.models,
            concurrencies=self._clients(),
            rates_per_s=self.request_rates,
            batches=self.batches,
            rounds=rounds if self.rounds is None else self.rounds,
            windows=Windows(window_s=window_s if self.window_s is None else self.window_s),
        )

    def command(self) -> str:
        """How to do it again, without the paths and ports of one machine."""
        plan = self.plan()
        loads = [f"--model {model}" for model in plan.models] + [f"--clients {number}" for number in plan.concurrencies]
        loads += [f"--request-rate {rate:g}" for rate in plan.rates_per_s]
        loads += [f"--batch {number}" for number in plan.batches] if plan.batches != (1,) else []
        source = "--questions FILE" if self.questions else f"--index DIR --count {self.count}"
        where = f"{source} --output DIR" if self.url is None else f"{source} --output DIR --url HOST:GRPC_PORT"
        where += " --metrics-url HOST:METRICS_PORT" if self.metrics_url else ""
        return f"tritonrag bench {where} {' '.join(loads)} --rounds {plan.rounds} --window-s {plan.windows.window_s:g}"

    def _clients(self) -> tuple[int, ...]:
        if self.clients is not None:
            return self.clients
        return () if self.request_rates else _CLIENTS


def run(request: BenchRequest) -> None:
    """Measure, write the record and say the main figures; ends in status 1 where a measurement failed.

    What is missing (matplotlib, perf_analyzer, the index) is told before anything is started. Raises RagError.
    """
    plan = request.plan()
    if request.plot:
        require_matplotlib()
    find_binary()
    with open_steps() as steps:
        questions = _questions(request)
        steps.note(expected(plan))
        with _server(request, steps) as (url, watch):
            figures = sweep(
                url=url,
                watch=watch,
                questions=questions,
                plan=plan,
                command=request.command(),
                progress=lambda done, total, load: steps.step(f"measuring {done + 1} of {total}: {load}"),
            )
    paths = write_record(figures, request.output, name=request.name, title=TITLE, plot=request.plot)
    _announce(figures, paths, json=request.json)
    for failure in figures.failures:
        tell(f"not measured: {failure}")
    if figures.failures:
        raise typer.Exit(1)


def _questions(request: BenchRequest) -> QuestionSet:
    if request.questions is not None:
        return questions_of_file(request.questions)
    return questions_of_index(settings_from(index=request.index).index, count=request.count, seed=_SEED)


@contextmanager
def _server(request: BenchRequest, steps: Steps) -> Iterator[tuple[str, Watch]]:
    """The gRPC address to measure at, and what can be seen of the server: a running one, or one that is stopped again."""
    if request.url is not None:
        yield request.url, Watch(metrics=request.metrics_url)
        return
    settings = settings_from(index=request.index, embedder=request.embedder)
    look_at(settings)
    with TritonServer() as server:
        steps.step("starting Triton on free ports")
        running = server.start(ServeOptions(settings=settings, open_apis=MEASURING_APIS))
        metrics = request.metrics_url or f"{running.host}:{running.metrics_port}"
        yield running.grpc_url, Watch(session=running.pid, metrics=metrics)
        steps.step("stopping Triton")


def _announce(figures: Figures, paths: list[Path], *, json: bool) -> None:
    rows = [_row(figures, load) for load in figures.loads()]
    if json:
        failures = [str(failure) for failure in figures.failures]
        write_json({"machine": str(figures.machine), "loads": rows, "failures": failures, "files": [*map(str, paths)]})
        return
    write(bold(str(figures.machine)))
    for row in rows:
        write(
            f"  {row['load']:<44} {row['questions_per_s']:>8,.1f} questions/s"
            f"  p50 {row['p50_ms']:,.1f} ms  p99 {row['p99_ms']:,.1f} ms{_cost_words(row)}"
        )
    write(f"written: {', '.join(map(str, paths))}")


def expected(plan: Plan) -> str:
    """How long measuring will take, in words."""
    least_s, most_s = plan.expected_s()
    return (
        f"{len(plan.order())} measurements: {least_s:,.0f} to {most_s:,.0f} s, and the server's start; "
        "longer where an answer takes longer than a window"
    )


def _cost_words(row: dict[str, str | float | None]) -> str:
    if row["server_cpu_ms"] is None:
        return ""
    return f"  CPU {row['server_cpu_ms']:.2f} ms a question, client's {row['client_cpu_ms']:.2f}"


def _row(figures: Figures, load: Load) -> dict[str, str | float | None]:
    """The medians over the rounds of one load."""
    measured = [r.measurement for r in figures.of(load)]
    uses = [r.use for r in figures.of(load) if r.use]
    return {
        "load": str(load),
        "model": load.model,
        "clients": load.concurrency if load.rate_per_s is None else None,
        "requests_per_s": load.rate_per_s,
        "batch": load.batch,
        "questions_per_s": round(median(m.requests_per_s for m in measured), 1),
        "p50_ms": round(median(m.latency.p50_ms for m in measured), 3),
        "p99_ms": round(median(m.latency.p99_ms for m in measured), 3),
        "server_cpu_ms": _median(u.server_cpu_ms for u in uses),
        "client_cpu_ms": _median(u.client_cpu_ms for u in uses),
        "server_pss_bytes": _median(u.server_pss_bytes for u in uses),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 3) if known else None
