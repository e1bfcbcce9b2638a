"""A tiny trace replayed against a real server: every question is answered, and a repeat is known to the caches."""

import json
from pathlib import Path

import pytest

from tests.trace_made import line, write_trace
from tritonrag.launcher import RunningServer
from tritonrag_client.errors import UnavailableError
from tritonrag_perf.trace.replay import ReplayPlan, main, replay_trace
from tritonrag_perf.trace.schedule import Window

MODELS = ("retrieve", "generator", "rag")


@pytest.fixture(scope="module")
def trace_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = [line(at, 3 + at % 6, [at % 6, 8]) for at in range(24)]
    return write_trace(tmp_path_factory.mktemp("trace"), asked)


def plan(server: RunningServer, trace: Path, index: Path, embedder: Path, **options: object) -> ReplayPlan:
    url, metrics = server.grpc_url, f"{server.host}:{server.metrics_port}"
    window = Window(speed=20, seconds=2)
    return ReplayPlan(trace=trace, url=url, metrics=metrics, index=index, embedder=embedder, window=window, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
def test_every_question_is_answered(
    server: RunningServer, trace_dir: Path, index_dir: Path, embedder_dir: Path, model: str
) -> None:
    record = replay_trace(plan(server, trace_dir, index_dir, embedder_dir, model=model, seed=MODELS.index(model)))
    assert (record.answers, record.failures, record.degraded) == (24, {}, 0)
    assert (record.asked.repeats, record.asked.unequal, record.asked.alike) == (18, 0, 0)
    assert record.latency is not None
    assert record.first is not None
    assert record.first.p50 <= record.latency.p50
    assert record.found > record.aimed / 2  # the words of a passage find it again
    assert record.caches is not None
    searches = record.caches["searches"]
    assert searches.hits > 0
    assert searches.asked - searches.hits >= 6  # each of the different questions was searched for


def test_the_command_writes_page_and_record(
    server: RunningServer, trace_dir: Path, index_dir: Path, embedder_dir: Path, tmp_path: Path
) -> None:
    folders = f"--trace {trace_dir} --index {index_dir} --embedder {embedder_dir} --output {tmp_path}"
    main([*folders.split(), "--url", server.grpc_url, "--speed", "40", "--seconds", "1", "--model", "retrieve"])
    record = json.loads((tmp_path / "trace-replay.json").read_text())
    page = (tmp_path / "trace-replay.md").read_text()
    assert record["answers"] == 24
    assert record["command"] in page
    assert str(trace_dir) not in page


def test_metrics_that_are_not_there_are_told_before_anything_is_sent(
    server: RunningServer, trace_dir: Path, index_dir: Path, embedder_dir: Path
) -> None:
    asked = plan(server, trace_dir, index_dir, embedder_dir)
    wrong = ReplayPlan(**{**{name: getattr(asked, name) for name in ReplayPlan.__slots__}, "metrics": "127.0.0.1:1"})
    with pytest.raises(UnavailableError, match="no metrics"):
        replay_trace(wrong)
