"""A real Triton in profile gpu: its answers against profile cpu's, its speed, and the GPU in its metrics."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_client import RagClient, SearchResult, Timeouts
from tritonrag_client.contract import RETRIEVE
from tritonrag_perf.corpus import QuestionSet, questions_of_index
from tritonrag_perf.gpu.part import Run
from tritonrag_perf.gpu.serving import check_nothing_left, encoder_device, gpu_options
from tritonrag_perf.gpu.timing import Spread as Repeats
from tritonrag_perf.load import Load, Windows
from tritonrag_perf.measurement import Measurement
from tritonrag_perf.perf_analyzer import PerfAnalyzer
from tritonrag_perf.questions import write_input_data
from tritonrag_perf.scrape import Scraped, Scraper
from tritonrag_perf.spread import Spread

# What a cosine may be off by where vectors are computed in FP16: twice the distance that a cosine of 0.999999 to the right vector
# allows, sqrt(2 * 1e-6) = 1.4e-3.
TOLERANCE: Final = 3e-3
_GPU_GAUGES: Final = (
    "nv_gpu_utilization",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_power_usage",
)
_GPU_ENERGY: Final = "nv_energy_consumption_total"  # a counter, which grows under load
_PASSAGES: Final = 10
_A_REQUEST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is asked."""

    questions: int
    clients: tuple[int, ...]
    rounds: int
    windows: Windows

    @classmethod
    def of(cls, run: Run) -> "Plan":
        """By scale."""
        if run.is_tiny:
            return cls(questions=24, clients=(2,), rounds=1, windows=Windows(window_s=0.2, max_windows=3))
        return cls(questions=400, clients=(1, 16, 64), rounds=3, windows=Windows(window_s=2.0))


def measure(run: Run) -> None:
    """First profile cpu's answers, then profile gpu's, its load and its metrics. Both encode by graphs finer than int8."""
    plan = Plan.of(run)
    questions = questions_of_index(run.index, count=plan.questions, seed=4)
    options = _in_fp32(gpu_options(run))
    run.tell("profile cpu")
    with TritonServer() as server:
        expected = _answers(server.start(_on_cpu(options)), questions.texts)
    run.tell("profile gpu")
    with TritonServer() as server:
        running = server.start(options)
        _compare(run, expected, _answers(running, questions.texts))
        with Scraper(f"{running.host}:{running.metrics_port}") as scraper:
            _load(run, plan, running, questions)
        _check_metrics(run, scraper.scraped())
    check_nothing_left(run, server)


def _in_fp32(options: ServeOptions) -> ServeOptions:
    """The CPU's int8 graph differs from both by more than FP16 does."""
    embedder = options.settings.embedder.model_copy(update={"precision": "fp32"})
    return replace(options, settings=options.settings.model_copy(update={"embedder": embedder}))


def _on_cpu(options: ServeOptions) -> ServeOptions:
    """Profile cpu of the same index, whatever the machine has."""
    retriever = options.settings.retriever.model_copy(update={"device": "cpu"})
    return replace(options, profile="cpu", settings=options.settings.model_copy(update={"retriever": retriever}))


def _answers(server: RunningServer, questions: Sequence[str]) -> list[SearchResult]:
    """By vectors alone: ranks fused with those of words would hide how far scores are off."""
    with RagClient(server.grpc_url, timeouts=Timeouts(total_s=120.0)) as client:
        found: list[SearchResult] = []
        for start in range(0, len(questions), _A_REQUEST):
            some = list(questions[start : start + _A_REQUEST])
            found += client.search(some, num_passages=_PASSAGES, mode="dense")
        return found


def _compare(run: Run, expected: Sequence[SearchResult], got: Sequence[SearchResult]) -> None:
    """Scores rank by rank, and passages that the other side has not: those may only be as good as its last."""
    off, strange, same = 0.0, 0, 0
    for right, found in zip(expected, got, strict=True):
        scores = [(one.score, other.score) for one, other in zip(right.passages, found.passages, strict=True)]
        off = max(off, *(abs(one - other) for one, other in scores))
        known = {one.passage_id for one in right.passages}
        others = [one for one in found.passages if one.passage_id not in known]
        same += not others
        strange += sum(one.score > right.passages[-1].score + TOLERANCE for one in others)
    run.sheet.row("answers", questions=len(got), same_passages=same / len(got), score_difference=off)
    run.sheet.at_most("greatest difference of a score to profile cpu's", off, TOLERANCE)
    run.sheet.at_most("passages that profile cpu should have found and did not", strange, 0)
    degraded = sorted({found.degraded for found in got} - {""})
    run.sheet.check("nothing is given up", ok=not degraded, found=degraded or "nothing", wanted="nothing")


def _load(run: Run, plan: Plan, server: RunningServer, questions: QuestionSet) -> None:
    """perf_analyzer on `retrieve`, rounds of all numbers of clients one after the other."""
    perf_analyzer = PerfAnalyzer.locate(run.work)
    loads = [Load(model=RETRIEVE, concurrency=clients) for clients in plan.clients]
    measured: dict[Load, list[Measurement]] = {load: [] for load in loads}
    for _ in range(plan.rounds):
        for load in loads:
            if not run.has_time_for(f"a round of {load}", 10 * plan.windows.window_s):
                continue
            run.tell(str(load))
            data = write_input_data(run.work / "questions.json", questions.texts, load, stream=False, max_tokens=None)
            measured[load].append(perf_analyzer.run(load, plan.windows, url=server.grpc_url, input_data=data))
    for load in (load for load in loads if measured[load]):
        run.sheet.row(
            "served",
            model=f"`{load.model}`",
            clients=load.concurrency,
            questions_per_s=Repeats.of([one.requests_per_s for one in measured[load]]),
            p50_ms=Repeats.of([one.latency.p50_ms for one in measured[load]]),
            p99_ms=Repeats.of([one.latency.p99_ms for one in measured[load]]),
        )


def _check_metrics(run: Run, scraped: Scraped) -> None:
    """On a GPU Triton must tell of it; on a CPU it must not."""
    gauges: dict[str, list[Spread]] = defaultdict(list)
    for series, spread in scraped.gauges.items():
        gauges[_name(series)].append(spread)
    most = {name: max(spread.high for spread in gauges[name]) for name in _GPU_GAUGES if name in gauges}
    there = [*most, *{_name(series) for series in scraped.counters if _name(series) == _GPU_ENERGY}]
    wanted = [*_GPU_GAUGES, _GPU_ENERGY] if run.device == "cuda" else []
    run.sheet.check(
        "GPU metrics in Triton's /metrics", ok=there == wanted, found=there or "none", wanted=wanted or "none"
    )
    for name, greatest in most.items():
        run.sheet.row("gpu_metrics", name=name, least=min(spread.low for spread in gauges[name]), most=greatest)
    answered = sum(
        grown for series, grown in scraped.counters.items() if _name(series) == "nv_inference_request_success_total"
    )
    run.sheet.check("requests are counted", ok=answered > 0, found=answered, wanted="more than before")
    if most:
        run.sheet.at_least("nv_gpu_memory_used_bytes", most["nv_gpu_memory_used_bytes"], 1)
        if encoder_device(run) == "cuda":
            run.sheet.at_least("nv_gpu_utilization under load", most["nv_gpu_utilization"], 0.01)


def _name(series: str) -> str:
    """A series without its labels."""
    return series.partition("{")[0]
