"""Mixed traffic against the real server: searches, answers, streams and streams that are left come through and leave nothing."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import UnavailableError
from tritonrag_perf.corpus import questions_of_index
from tritonrag_perf.goodput_locust import Traffic
from tritonrag_perf.goodput_run import Limits
from tritonrag_perf.goodput_traffic import OPERATIONS, Mix

NO_LIMITS = Limits(search_ms=None, answer_ms=None, first_token_ms=None, late_ms=60_000)  # a busy machine breaks none


@pytest.fixture(scope="module")
def questions(settings: Settings) -> tuple[str, ...]:
    return questions_of_index(settings.index, count=20, seed=3).texts


def test_every_operation_comes_through_and_nothing_goes_on(
    server: RunningServer, wire: Wire, questions: tuple[str, ...]
) -> None:
    before = {name: wire.metric("nv_inference_request_success", model=name) for name in ("retrieve", "rag")}
    mix = Mix(search=1, ask=1, stream=1, cancel=1)
    traffic = Traffic(
        url=server.grpc_url, questions=questions, mix=mix, limits=NO_LIMITS, seconds=4, warm_up_s=0, timeout_s=30
    )
    run = traffic.run(10)
    assert run.broken == ()
    assert run.errors == {}
    assert {tail.operation for tail in run.tails} == set(OPERATIONS)
    for tail in run.tails:
        assert tail.succeeded == tail.requests > 0
        assert (tail.first_p50_ms is not None) == (tail.operation in {"stream", "cancel"})
    requests = {tail.operation: tail.requests for tail in run.tails}
    assert run.offered_per_s * 4 == sum(requests.values())
    assert wait_until(lambda: wire.metric("tritonrag_generations_running") == 0)
    answered = wire.metric("nv_inference_request_success", model="rag") - before["rag"]
    assert answered >= requests["ask"] + requests["stream"]
    retrieved = wire.metric("nv_inference_request_success", model="retrieve") - before["retrieve"]
    assert retrieved == sum(requests.values()), "every operation searches once"
    assert not [child for child in psutil.Process().children(recursive=True) if "locust" in " ".join(child.cmdline())]


def test_the_command_finds_a_rate_and_writes_it_down(
    server: RunningServer, questions: tuple[str, ...], tmp_path: Path
) -> None:
    asked = tmp_path / "questions.txt"
    asked.write_text("\n".join(questions))
    arguments = ["--url", server.grpc_url, "--questions", str(asked), "--output", str(tmp_path)]
    short = ["--start", "8", "--most", "8", "--seconds", "2", "--warm-up-s", "0.5", "--late-ms", "60000"]
    free = ["--search-ms", "60000", "--first-token-ms", "60000", "--timeout-s", "60"]
    command = [sys.executable, "-m", "tritonrag_perf.goodput", *arguments, *short, *free]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "goodput.json").read_text())["found"]
    assert (found["ended"], found["highest"]["rate_per_s"]) == ("most", 8)
    assert "may take more" in (tmp_path / "goodput.md").read_text()


def test_without_a_server_that_is_told_and_not_taken_for_a_slow_one() -> None:
    traffic = Traffic(url="127.0.0.1:1", questions=("Why?",), seconds=1, warm_up_s=0, timeout_s=2)
    with pytest.raises(UnavailableError, match="no request reached the server"):
        traffic.run(10)
