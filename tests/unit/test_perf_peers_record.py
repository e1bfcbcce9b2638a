"""A run over peers: its order, what it records, what its page says."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from perf_peers_toys import toy_server

from tritonrag_client.errors import InternalError, UnavailableError
from tritonrag_perf.machine import Machine
from tritonrag_perf.peers import running as running_module
from tritonrag_perf.peers.checking import Checked, Oracle
from tritonrag_perf.peers.contenders import Endpoint, Running
from tritonrag_perf.peers.load_process import Job, Window
from tritonrag_perf.peers.plot import write_plot
from tritonrag_perf.peers.record import Failure, Quality, Sample, SideBySide, Start
from tritonrag_perf.peers.report import render, write_record
from tritonrag_perf.peers.running import Plan, run

PLAN = Plan(questions=("q?", "r?"), k=2, clients=(1, 4), rounds=2, warm_up_s=0.1, seconds=0.2)
GOOD = Checked(recall_at_k=0.98, exact_share=1.0)


@dataclass
class FakeContender:
    name: str
    log: list[str]
    endpoints: tuple[str, ...] = ()
    precision: str = "int8"
    fails: bool = False

    @contextmanager
    def running(self) -> Iterator[Running]:
        if self.fails:
            raise UnavailableError("it does not start")
        self.log.append(f"+{self.name}")
        endpoints = tuple(Endpoint(name=one, protocol="peer", address=one) for one in self.endpoints or (self.name,))
        yield Running(endpoints=endpoints, pids=list, started_s=1.5)
        self.log.append(f"-{self.name}")


@dataclass
class FakeOracle:
    asked: list[str] = field(default_factory=list)

    def check(self, protocol: str, address: str, precision: str) -> Checked:
        self.asked.append(f"{protocol} {address} {precision}")
        return GOOD


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done in which order, without processes."""
    said: list[str] = []

    def drive(job: Job) -> Window:
        said.append(f"{job.address}x{job.clients}")
        return Window(seconds=2.0, latencies_ms=(1.0, 2.0, 3.0, 10.0), server_cpu_s=0.02, client_cpu_s=0.5)

    monkeypatch.setattr(running_module, "drive", drive)
    monkeypatch.setattr(running_module, "wait_for_rest", lambda _pids, **_: True)
    return said


def do(contenders: Sequence[FakeContender], oracle: FakeOracle) -> running_module.Results:
    return run(cast("Any", contenders), cast("Oracle", oracle), PLAN, lambda _: None)


def test_rounds_are_interleaved_and_every_other_one_goes_backwards(log: list[str]) -> None:
    do([FakeContender("a", log), FakeContender("b", log)], FakeOracle())
    first = ["+a", "ax1", "ax4", "-a", "+b", "bx1", "bx4", "-b"]
    second = ["+b", "bx4", "bx1", "-b", "+a", "ax4", "ax1", "-a"]
    assert log == first + second


def test_both_ways_to_our_server_share_its_turn_and_each_is_checked_once(log: list[str]) -> None:
    oracle = FakeOracle()
    results = do([FakeContender("ours", log, endpoints=("grpc", "http"))], oracle)
    assert log[:6] == ["+ours", "grpcx1", "httpx1", "grpcx4", "httpx4", "-ours"]
    assert oracle.asked == ["peer grpc int8", "peer http int8"]
    assert [(one.endpoint, one.round) for one in results.starts] == [("grpc", 0), ("http", 0), ("grpc", 1), ("http", 1)]


def test_a_contender_that_fails_is_recorded_and_the_others_are_measured(log: list[str]) -> None:
    results = do([FakeContender("bad", log, fails=True), FakeContender("good", log)], FakeOracle())
    assert [(one.name, one.round) for one in results.failures] == [("bad", 0), ("bad", 1)]
    assert {one.endpoint for one in results.samples} == {"good"}


def test_a_server_that_does_not_come_to_rest_is_not_measured(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "wait_for_rest", lambda _pids, **_: False)
    results = do([FakeContender("restless", log)], FakeOracle())
    assert "restless still takes CPU time" in results.failures[0].reason
    assert not results.samples


def test_a_window_without_an_answer_is_a_failure(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Window(seconds=2.0, latencies_ms=(), server_cpu_s=0.0, client_cpu_s=0.0)
    monkeypatch.setattr(running_module, "drive", lambda _job: empty)
    assert "gave no answer" in do([FakeContender("mute", log)], FakeOracle()).failures[0].reason


def test_a_sample_sums_up_its_window() -> None:
    window = Window(seconds=2.0, latencies_ms=(1.0, 2.0, 3.0, 10.0), server_cpu_s=0.02, client_cpu_s=0.5)
    sample = Sample.of(window, endpoint="a", clients=4, round_=1)
    assert sample.questions_per_s == 2.0
    assert sample.p50_ms == 2.5
    assert 9.7 < sample.p99_ms <= 10.0
    assert sample.server_cpu_ms == pytest.approx(5.0)
    assert sample.client_cores == 0.25


def test_a_real_load_on_a_toy_server_comes_through(tmp_path: Path) -> None:
    with toy_server() as toy:
        contender = SimpleNamespace(name="toy", precision="int8", running=lambda: _running(toy.address))
        results = run(cast("Any", [contender]), cast("Oracle", FakeOracle()), PLAN, lambda _: None)
    assert not results.failures
    assert [(one.clients, one.round) for one in results.samples] == [(1, 0), (4, 0), (4, 1), (1, 1)]
    assert set(toy.questions) == set(PLAN.questions)
    paths = write_record(record(results.samples), tmp_path, name="n", title="T", plot=None)
    assert len(json.loads(paths[0].read_text())["samples"]) == 4


@contextmanager
def _running(address: str) -> Iterator[Running]:
    yield Running(endpoints=(Endpoint(name="toy", protocol="peer", address=address),), pids=list, started_s=0.1)


def sample(endpoint: str, rate: float, *, clients: int = 1, round_: int = 0) -> Sample:
    return Sample(
        endpoint=endpoint,
        clients=clients,
        round=round_,
        questions_per_s=rate,
        p50_ms=1.0,
        p99_ms=2.0,
        answers=10,
        server_cpu_ms=0.5,
        client_cores=0.1,
    )


def record(samples: Sequence[Sample], **changed: Any) -> SideBySide:
    return replace(
        SideBySide(
            date="2026-01-02",
            machine=Machine(cpu="Some CPU", cores=2, memory_gib=23.5, system="Linux"),
            command="python -m tritonrag_perf.peers --index DIR",
            questions="2 questions",
            passages=1234,
            kind="flat",
            k=10,
            samples=tuple(samples),
            starts=(),
            qualities=(),
        ),
        **changed,
    )


def quality(endpoint: str, recall: float, precision: str = "int8") -> Quality:
    return Quality(endpoint=endpoint, precision=precision, checked=Checked(recall_at_k=recall, exact_share=1.0))


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    rates = {"tritonrag grpc": (10.0, 40.0, 90.0), "peer": (10.0, 10.0, 30.0)}
    samples = [sample(name, rate, round_=r) for name, row in rates.items() for r, rate in enumerate(row)]
    ratio = record([*samples, sample("peer", 1.0, round_=3)]).ratio("tritonrag grpc", "peer", 1)
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 1.0, 4.0)


def test_the_page_tells_loads_ratios_answers_and_what_is_missing() -> None:
    page = render(
        record(
            [sample("tritonrag grpc", 30, clients=4), sample("peer", 10, clients=4)],
            qualities=(quality("tritonrag grpc", 0.98), quality("peer", 0.95), quality("fp", 1.0, "fp32")),
            starts=(Start(endpoint="peer", round=0, started_s=2.5, memory_bytes=300 * 2**20),),
            failures=(Failure(name="gone", round=1, reason="it does not start\ntraceback"),),
        ),
        title="T",
        plot="n.png",
    )
    assert "| peer | 4 | 10 (10-10) | 1.0 (1.0-1.0) | 2.0 (2.0-2.0) | 0.50 (0.50-0.50) | 0.10 (0.10-0.10) |" in page
    assert "| peer | 3.00 (3.00-3.00) |" in page
    assert "| peer | int8 | 0.9500 | 1.000 | 2.5 (2.5-2.5) | 300 (300-300) |" in page
    assert "- Not comparable, because its recall is not ours: peer." in page
    assert "- Not measured: gone, round 2: it does not start.".rstrip(".") in page
    assert "traceback" not in page
    assert "![Questions per second by number of clients](n.png)" in page


def test_peers_of_another_precision_or_equal_recall_are_compared() -> None:
    qualities = (quality("tritonrag grpc", 0.98), quality("near", 0.9785), quality("fp", 1.0, "fp32"))
    made = record([sample("tritonrag grpc", 1), sample("near", 1), sample("fp", 1)], qualities=qualities)
    assert made.unequal(["near", "fp"], "tritonrag grpc") == []


def test_a_picture_is_written_even_where_a_peer_misses_a_load(tmp_path: Path) -> None:
    made = record([sample("a", 1), sample("a", 2, clients=4), sample("b", 1)])
    write_plot(tmp_path / "n.png", made)
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")


def test_a_load_that_breaks_off_is_told(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_job: Job) -> Window:
        raise InternalError("the load broke off")

    monkeypatch.setattr(running_module, "drive", broken)
    assert "broke off" in do([FakeContender("x", log)], FakeOracle()).failures[0].reason
