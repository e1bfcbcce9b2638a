"""Triton itself dies or hangs under load: it is started again on the same ports, and no answer is wrong."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.load import Load, References
from tests.faults.serving import TIMEOUT_S, Serve, serving
from tests.server import toy
from tests.waiting import wait_until
from tritonrag.processes import session_members

BACK_S = 60.0


def kill_triton(serve: Serve) -> None:
    os.kill(serve.triton_pid(), signal.SIGKILL)


def stop_triton(serve: Serve) -> None:
    os.kill(serve.triton_pid(), signal.SIGSTOP)


def kill_both(serve: Serve) -> None:
    stub = serve.stubs("retrieve")[0].pid
    triton = serve.triton_pid()
    os.kill(stub, signal.SIGKILL)
    os.kill(triton, signal.SIGKILL)


@pytest.mark.parametrize("break_it", [kill_triton, stop_triton, kill_both])
def test_triton_comes_back_on_the_same_ports_and_no_answer_is_wrong(
    serve: Serve, references: References, break_it: Callable[[Serve], None]
) -> None:
    assert serve.is_ready()
    triton, restarts, regions = serve.triton_pid(), serve.health()["restarts"], serve.regions()
    with Load(serve.grpc_url, references) as load:
        assert wait_until(lambda: load.answered_since(0.0))
        break_it(serve)
        assert wait_until(lambda: not serve.is_ready())
        assert wait_until(serve.is_ready, BACK_S), serve.health()
        back_s = time.monotonic()
        assert wait_until(lambda: load.answered_since(back_s), BACK_S)
    assert load.tally.faults() == []
    assert serve.health()["restarts"] == restarts + 1
    assert session_members(triton) == [], "a process of the old Triton lives"
    assert serve.triton_pid() != triton
    assert not serve.regions() & regions, "shared memory of the old Triton is left"
    assert len(list(serve.temporary.glob("tritonrag-home-*"))) == 1


def test_a_triton_that_can_not_be_started_again_ends_serve_with_the_error(tmp_path: Path) -> None:
    repository = toy.make_repository(tmp_path / "repository")
    index, embedder = toy.make_index(tmp_path / "index"), toy.make_embedder(tmp_path / "embedder")
    with serving(
        tmp_path,
        index=index,
        embedder=embedder,
        arguments=("--model-repository", str(repository)),
        TRITONRAG_SUPERVISOR_FAILED_STARTS="2",
    ) as serve:
        (repository / "retrieve" / "1" / "model.py").write_text(toy.BROKEN.format(error=toy.CODED))
        kill_triton(serve)
        assert serve.process.wait(TIMEOUT_S) == 1
        last = serve.stderr.read_text().splitlines()[-1]
        assert last.startswith("tritonrag: internal: Triton did not start 2 times in a row")
        assert "the index directory /data/index is missing; build one" in last
        assert serve.events_of("triton")[-1] == "gave_up"
        assert serve.ports_in_use() == []
        assert list(serve.temporary.glob("tritonrag-home-*")) == []
