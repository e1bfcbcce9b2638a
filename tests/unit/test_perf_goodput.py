"""The highest rate that holds is found whatever it is, limits are judged from when a request was due, and the loop stays open."""

import itertools
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_client.errors import (
    BadRequestError,
    InternalError,
    NotFoundError,
    OverloadedError,
    RagError,
    UnavailableError,
)
from tritonrag_client.results import AnswerDelta
from tritonrag_perf import goodput, goodput_locust
from tritonrag_perf.goodput import main
from tritonrag_perf.goodput_locust import Traffic
from tritonrag_perf.goodput_report import verdict
from tritonrag_perf.goodput_run import Limits, TrafficRun, sum_up, thin
from tritonrag_perf.goodput_search import Found, Range, find_highest
from tritonrag_perf.goodput_traffic import (
    NOT_SENT,
    Due,
    Mix,
    Sample,
    not_sent,
    perform,
    read_samples,
    schedule,
    write_samples,
)


@dataclass(frozen=True)
class Run:
    holds: bool


class Server:
    """Takes so many requests a second and no more; keeps what rates it was asked."""

    def __init__(self, capacity: float, *, lies: frozenset[int] = frozenset()) -> None:
        self.capacity = capacity
        self.lies = lies
        self.asked: list[float] = []

    def __call__(self, rate_per_s: float) -> Run:
        self.asked.append(rate_per_s)
        return Run((rate_per_s <= self.capacity) != (len(self.asked) in self.lies))


@given(
    capacity=st.floats(1.0, 1000.0),
    start=st.floats(1.0, 1000.0),
    growth=st.floats(1.1, 10.0),
    precision=st.floats(0.01, 1.0),
)
def test_the_edge_is_found_to_the_precision_asked_for(
    capacity: float, start: float, growth: float, precision: float
) -> None:
    server = Server(capacity)
    found = find_highest(server, Range(start=start, least=0.9, most=1200.0, growth=growth, precision=precision))
    assert found.ended == "found"
    assert found.highest is not None
    highest = found.highest.rate_per_s
    assert highest <= capacity
    missed = min(step.rate_per_s for step in found.steps if not step.holds)
    assert capacity < missed <= highest * (1 + precision) * (1 + 1e-9)
    assert len(server.asked) == len(set(server.asked)) == len(found.steps)
    most_steps = math.log(1200 / 0.9) / math.log(growth) + math.log2(math.log(growth) / math.log1p(precision) + 1)
    assert len(found.steps) <= most_steps + 4


def test_it_rises_by_factors_and_then_halves() -> None:
    server = Server(100)
    find_highest(server, Range(start=4, growth=2, precision=0.2))
    assert server.asked == pytest.approx([4, 8, 16, 32, 64, 128, 64 * 2**0.5, 64 * 2**0.75])


def test_where_the_start_does_not_hold_it_goes_down() -> None:
    server = Server(3)
    found = find_highest(server, Range(start=10, growth=2, precision=0.5))
    assert server.asked[:3] == [10, 5, 2.5]
    assert found.highest is not None
    assert 2.5 <= found.highest.rate_per_s <= 3


def test_where_the_most_holds_that_is_the_end_and_told() -> None:
    server = Server(1e9)
    found = find_highest(server, Range(start=4, most=20))
    assert server.asked == [4, 8, 16, 20]
    assert (found.ended, found.highest and found.highest.rate_per_s) == ("most", 20)


def test_where_nothing_holds_there_is_no_rate() -> None:
    server = Server(0)
    found = find_highest(server, Range(start=4, least=1))
    assert server.asked == [4, 2, 1]
    assert (found.ended, found.highest) == ("least", None)


@given(lie=st.integers(1, 8))
def test_of_several_runs_the_majority_counts_and_no_more_are_made_than_that_takes(lie: int) -> None:
    honest, lying = Server(100), Server(100, lies=frozenset({lie}))
    within = Range(start=50, precision=0.05, repeats=3)
    there, here = find_highest(honest, within), find_highest(lying, within)
    assert [step.rate_per_s for step in there.steps] == [step.rate_per_s for step in here.steps]
    assert all(len(step.runs) == 2 for step in there.steps)
    assert sum(len(step.runs) == 3 for step in here.steps) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"least": 0}, {"start": 0.1}, {"most": 1}, {"most": math.inf}, {"growth": 1}, {"precision": 0}, {"repeats": 2}],
)
def test_a_search_that_can_not_end_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadRequestError):
        Range(**{"start": 4, **wrong})


def test_arrivals_are_a_poisson_process_of_the_rate_and_operations_follow_their_weights() -> None:
    mix = Mix.parse("search=3, stream=1")
    dues = list(itertools.islice(schedule(mix, ["a", "b"], rate_per_s=50, seed=7), 20_000))
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(dues)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)  # an exponential's is its mean
    counts = Counter(due.operation for due in dues)
    assert set(counts) == {"search", "stream"}
    assert counts["search"] / counts["stream"] == pytest.approx(3, rel=0.1)
    assert {due.question for due in dues} == {"a", "b"}


def test_the_same_seed_is_the_same_loop() -> None:
    one, same, other = (
        list(itertools.islice(schedule(Mix(), "abc", rate_per_s=5, seed=seed), 50)) for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("text", ["", "search=0", "search", "search=x", "find=1", "search=-1", "search=nan", "ask=inf"])
def test_a_mix_of_nothing_or_of_what_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="the mix"):
        Mix.parse(text)


def test_a_mix_is_written_as_it_is_read() -> None:
    assert Mix.parse(str(Mix())) == Mix()


@pytest.mark.parametrize(("questions", "rate"), [([], 1), (["a"], 0), (["a"], math.inf)])
def test_a_loop_without_questions_or_rate_is_refused(questions: list[str], rate: float) -> None:
    with pytest.raises(BadRequestError):
        schedule(Mix(), questions, rate_per_s=rate, seed=0)


class Client:
    """Answers at a time that it sets itself, on a clock that it holds."""

    def __init__(self, clock: list[float], error: RagError | None = None) -> None:
        self.clock = clock
        self.error = error
        self.left = False

    def wait(self, seconds: float) -> None:
        self.clock[0] += seconds
        if self.error:
            raise self.error

    def search(self, _question: str) -> None:
        self.wait(0.5)

    def ask(self, _question: str) -> None:
        self.wait(1.5)

    def stream(self, _question: str) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def __iter__(self) -> Iterator[AnswerDelta]:
        for text, finish_reason in (("", ""), ("a", ""), ("b", ""), ("", "stop")):
            self.wait(0.25)
            yield AnswerDelta(text=text, sources=(), finish_reason=finish_reason, degraded="", request_id="1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("tritonrag_perf.goodput_traffic.time.perf_counter", lambda: now[0])
    return now


def sent(client: Any, operation: Any, *, at_s: float = 0.0) -> Sample:
    return perform(client, Due(at_s=at_s, operation=operation, question="why?"), began_s=100.0)


@pytest.mark.parametrize(
    ("operation", "latency_ms", "first_ms"),
    [("search", 500, None), ("ask", 1500, None), ("stream", 1000, 500), ("cancel", 500, 500)],
)
def test_each_operation_is_timed_to_its_end_and_to_its_first_text(
    clock: list[float], operation: str, latency_ms: float, first_ms: float | None
) -> None:
    client = Client(clock)
    sample = sent(client, operation)
    assert (sample.late_ms, sample.latency_ms, sample.first_ms, sample.code) == (0, latency_ms, first_ms, "")
    assert client.left == (first_ms is not None)


def test_time_counts_from_when_a_request_was_due_not_from_when_it_was_sent(clock: list[float]) -> None:
    clock[0] += 3
    sample = sent(Client(clock), "stream", at_s=1.0)
    assert (sample.late_ms, sample.latency_ms, sample.first_ms) == (2000, 3000, 2500)


def test_an_error_is_kept_by_its_code(clock: list[float]) -> None:
    for operation in ("search", "ask", "stream", "cancel"):
        sample = sent(Client(clock, OverloadedError("full")), operation)
        assert (sample.code, sample.first_ms) == ("overloaded", None)


def test_an_answer_that_breaks_off_is_an_error(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    broken = AnswerDelta(text="", sources=(), finish_reason="error", degraded="engine gone", request_id="1")
    monkeypatch.setattr(Client, "__iter__", lambda _: iter([broken]))
    assert sent(Client(clock), "stream").code == "internal"


def test_what_is_not_sent_is_a_request_that_failed(clock: list[float]) -> None:
    clock[0] += 2
    sample = not_sent(Due(at_s=1.5, operation="ask", question="why?"), began_s=100.0)
    assert (sample.code, sample.latency_ms) == (NOT_SENT, 500)


def test_samples_are_read_back_in_the_order_in_which_they_were_due(tmp_path: Path) -> None:
    samples = [search(2.0, 5), search(1.0, 7, code="overloaded")]
    write_samples(tmp_path / "samples", samples)
    assert read_samples(tmp_path / "samples") == samples[::-1]
    for wrong in ("{", "{}", '{"x": 1}'):
        (tmp_path / "samples").write_text(wrong)
        with pytest.raises(InternalError, match="left no samples"):
            read_samples(tmp_path / "samples")


def search(due_s: float, latency_ms: float, *, late_ms: float = 0, code: str = "") -> Sample:
    return Sample(operation="search", due_s=due_s, late_ms=late_ms, latency_ms=latency_ms, code=code)


def stream(due_s: float, first_ms: float, latency_ms: float) -> Sample:
    return Sample(operation="stream", due_s=due_s, late_ms=0, latency_ms=latency_ms, first_ms=first_ms)


LIMITS = Limits(search_ms=100, answer_ms=1000, first_token_ms=200, errors=0.1, late_ms=30)


def judged(*samples: Sample, limits: Limits = LIMITS, warm_up_s: float = 0) -> TrafficRun:
    return sum_up(samples, limits, rate_per_s=10, warm_up_s=warm_up_s, seconds=10, client_cores=0.5)


def test_a_run_within_every_limit_holds() -> None:
    run = judged(*(search(i / 10, 50) for i in range(80)), *(stream(i / 10, 150, 900) for i in range(20)))
    assert run.holds
    assert (run.offered_per_s, run.goodput_per_s) == (10, 10)
    assert [(tail.operation, tail.requests) for tail in run.tails] == [("search", 80), ("stream", 20)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (search(5, 150), "search p99"),
        (stream(5, 250, 900), "stream first token p99 250 ms > 200 ms"),
        (stream(5, 150, 1001), "stream p99 1,001 ms > 1000 ms"),
    ],
)
def test_each_limit_breaks_a_run_by_itself_and_is_named(bad: Sample, reason: str) -> None:
    run = judged(*(search(i, 50) for i in range(9)), bad)
    (broken,) = run.broken
    assert reason in broken
    assert run.goodput_per_s == pytest.approx(0.9)


def test_errors_and_a_late_client_break_a_run_and_failed_requests_are_in_no_percentile() -> None:
    good = [search(i / 10, 50) for i in range(80)]
    failed = [search(8 + i / 10, 9_999, code="overloaded") for i in range(10)]
    run = judged(*good, *failed)
    (broken,) = run.broken
    assert "errors 11.1% > 10.0% (10 overloaded)" in broken
    assert run.tails[0].p99_ms == 50
    assert judged(*good, *failed[:8]).holds
    (broken,) = judged(*(replace(sample, late_ms=40) for sample in good)).broken
    assert "the client sent 40 ms late" in broken


def test_the_warm_up_and_what_came_due_after_the_end_do_not_count() -> None:
    run = judged(search(1.9, 9_999), search(2.0, 50), search(11.9, 50), search(12.0, 9_999), warm_up_s=2)
    assert run.holds
    assert run.offered_per_s == pytest.approx(0.2)
    with pytest.raises(InternalError, match="no request came due"):
        judged(search(1.0, 50), warm_up_s=2)


def test_without_a_limit_there_is_none_and_leaving_early_has_none_on_its_end() -> None:
    free = Limits(search_ms=None, answer_ms=None, first_token_ms=None)
    assert judged(search(0, 1e6), stream(1, 1e6, 1e6), limits=free).holds
    left = Sample(operation="cancel", due_s=1, late_ms=0, latency_ms=5_000, first_ms=100)
    assert judged(left).holds
    assert not judged(replace(left, first_ms=300)).holds


def test_few_requests_of_an_operation_are_told() -> None:
    assert thin(judged(*(search(i / 10, 50) for i in range(10)), stream(1, 150, 900))) == ["stream"]


@pytest.mark.parametrize("wrong", [{"search_ms": 0}, {"late_ms": -1}, {"errors": 1}, {"errors": -0.1}])
def test_a_limit_that_can_not_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadRequestError, match=next(iter(wrong))):
        Limits(**wrong)


def fake_locust(
    monkeypatch: pytest.MonkeyPatch, latency_ms: Any, *, code: str = "", status: int = 0
) -> list[list[str]]:
    """A Locust that sends nothing, and whose answers take `latency_ms(rate)`."""
    commands = []

    def execute(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        given = dict(itertools.pairwise(command))
        rate, seconds = float(given["--rate"]), float(given["--seconds"])
        samples = [search(i / rate, latency_ms(rate), code=code) for i in range(int(rate * seconds))]
        write_samples(Path(given["--samples"]), samples)
        return subprocess.CompletedProcess(command, status, "", "Traceback\nboom")

    monkeypatch.setattr(goodput_locust.subprocess, "run", execute)
    return commands


ARGUMENTS = ["--url", "h:1", "--questions", "q.txt", "--output", "out", "--search-ms", "100", "--start", "10"]


@pytest.fixture
def _questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("q.txt").write_text("Why?\nHow?\n")


@pytest.mark.usefixtures("_questions")
def test_the_command_searches_and_writes_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_locust(monkeypatch, lambda rate: 50 if rate <= 100 else 500)
    main([*ARGUMENTS, "--mix", "search=1"])
    data = json.loads(Path("out/goodput.json").read_text())
    assert data["found"]["ended"] == "found"
    assert 90 < data["found"]["highest"]["rate_per_s"] <= 100
    page = Path("out/goodput.md").read_text()
    assert "search p99 500 ms > 100 ms" in page
    assert "| 10.0/s | 10.0/s | 10.0/s | yes | 50.0 | - | - |" in page
    assert "--search-ms 100 --first-token-ms 1000" in page
    seeds = [command[command.index("--seed") + 1] for command in commands]
    assert seeds == [str(number) for number in range(len(commands))]


@pytest.mark.usefixtures("_questions")
@pytest.mark.parametrize(
    ("locust", "arguments", "message"),
    [
        ({"code": "unavailable"}, [], "no request reached the server at h:1"),
        ({"status": 1}, [], "Locust ended with status 1: boom"),
        ({}, ["--mix", "dance=1"], "dance"),
        ({}, ["--precision", "0"], "precision is 0"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, locust: dict[str, Any], arguments: list[str], message: str
) -> None:
    fake_locust(monkeypatch, lambda _: 50, **locust)
    with pytest.raises(SystemExit, match=message):
        main([*ARGUMENTS, *arguments])
    assert not Path("out").exists()


def test_some_requests_that_do_not_arrive_are_errors_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_locust(monkeypatch, lambda _: 50)
    some = [search(1, 50), search(2, 50, code=UnavailableError.code)]
    monkeypatch.setattr(goodput_locust, "read_samples", lambda _: some)
    run = Traffic(url="h:1", questions=("Why?",), warm_up_s=0).run(10)
    assert run.errors == {"unavailable": 1}
    assert not run.holds


def test_without_locust_or_its_scenario_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    traffic = Traffic(url="h:1", questions=("Why?",), scenario=tmp_path / "none.py")
    with pytest.raises(NotFoundError, match=r"none\.py is not there"):
        traffic.run(1)
    monkeypatch.setattr(goodput_locust, "find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="tritonrag\\[perf\\]"):
        traffic.run(1)


@pytest.mark.parametrize(("capacity", "words"), [(0, "No rate held"), (1e9, "may take more")])
def test_a_result_that_is_a_bound_is_told_as_one(capacity: float, words: str) -> None:
    def measure(rate_per_s: float) -> TrafficRun:
        return replace(judged(search(1, 50 if rate_per_s <= capacity else 500)), rate_per_s=rate_per_s)

    found: Found[TrafficRun] = find_highest(measure, Range(start=4, most=8, least=2))
    assert words in verdict(found)


def test_the_driver_itself_loads_no_gevent() -> None:
    code = f"import sys, {goodput.__name__}; sys.exit('gevent' in sys.modules or 'locust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
