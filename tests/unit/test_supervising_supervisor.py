"""Without a supervisor a server must not go on: one that fails says so, and ends `serve`."""

import io
import select
from pathlib import Path
from typing import Any, Self

import pytest
from tests.unit.running import running_server

from tritonrag.supervising.events import Events
from tritonrag.supervising.judge import Restart
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.stages import stages_of
from tritonrag.supervising.status import Status
from tritonrag.supervising.supervisor import Supervisor
from tritonrag.supervising.watching import TritonEnded
from tritonrag.triton_command import find_model_repository
from tritonrag.triton_log import failure
from tritonrag_backends.settings import SupervisorSettings
from tritonrag_client.errors import InternalError

TIMEOUT_S = 10.0


class BrokenWatching:
    """Fails in a way that nobody foresaw."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def look(self) -> None:
        raise LookupError("nobody foresaw this")


class BlindWatching(BrokenWatching):
    """Sees nothing."""

    def look(self) -> None:
        return None

    def sweep(self) -> list[str]:
        return []


class PoorServer:
    """Has ended for a reason that is not for everybody, and can not be started again."""

    SAYS = "ValueError: no; At: /home/somebody/model.py(4)"

    def failure(self) -> InternalError:
        return InternalError(self.SAYS)

    def restart(self) -> None:
        raise OSError(11, "Resource temporarily unavailable", "/home/somebody/python")

    def kill(self) -> None:
        pass


def make_supervisor(tmp_path: Path, *, server: Any = None, stream: io.StringIO | None = None) -> Supervisor:
    metrics = SupervisorMetrics()
    events = Events(as_json=True, stream=stream or io.StringIO(), count=metrics.event)
    running = running_server(
        log_path=tmp_path / "log",
        models=("rag", "retrieve", "retriever", "embedder"),
        models_dir=find_model_repository(None),
    )
    return Supervisor(
        server,
        running,
        SupervisorSettings(),
        start_s=1.0,
        leave_s=1.0,
        has_gpus=False,
        status=Status(events, metrics),
        events=events,
        metrics=metrics,
    )


def has_ended(supervisor: Supervisor, timeout_s: float) -> bool:
    return bool(select.select([supervisor.ended], [], [], timeout_s)[0])


def test_one_that_fails_ends_and_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag.supervising.supervisor.Watching", BrokenWatching)
    with make_supervisor(tmp_path) as supervisor:
        assert has_ended(supervisor, TIMEOUT_S)
        assert "nobody foresaw this" in supervisor.failure().message


def test_one_that_is_told_to_stop_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag.supervising.supervisor.Watching", BlindWatching)
    with make_supervisor(tmp_path) as supervisor:
        assert not has_ended(supervisor, 0)
        supervisor.stop()
        supervisor.stop()
        assert has_ended(supervisor, 0)


def test_a_triton_that_can_not_be_started_for_want_of_memory_is_tried_again(tmp_path: Path) -> None:
    stream = io.StringIO()
    supervisor = make_supervisor(tmp_path, server=PoorServer(), stream=stream)
    assert supervisor._restart(Restart(reason="gone"))
    assert supervisor._judge.wants_restart
    assert told(supervisor).startswith("Triton does not start")
    assert "/home" not in told(supervisor)
    assert "Resource temporarily unavailable" in stream.getvalue()


def test_why_triton_has_ended_is_told_in_the_event_and_not_on_the_network(tmp_path: Path) -> None:
    stream = io.StringIO()
    supervisor = make_supervisor(tmp_path, server=PoorServer(), stream=stream)
    supervisor._end(TritonEnded(event="triton_ended", reason="Triton was ended by SIGKILL"))
    assert told(supervisor).startswith("Triton was ended by SIGKILL")
    assert PoorServer.SAYS not in told(supervisor)
    assert PoorServer.SAYS in stream.getvalue()


def told(supervisor: Supervisor) -> str:
    """What /health tells."""
    return "; ".join(one.reason for one in supervisor._status.report.degraded)


def test_the_stages_of_our_repository_are_the_four_and_each_runs_in_its_own_processes() -> None:
    stages = stages_of(find_model_repository(None), ["rag", "retriever"])
    assert {stage.name: stage.runs for stage in stages} == {
        name: frozenset({name}) for name in ("retriever", "retrieve", "generator")
    }


def test_an_ensemble_stands_for_the_models_at_its_ends(tmp_path: Path) -> None:
    step = 'ensemble_scheduling {{ step [ {{ model_name: "{0}" }}, {{ model_name: "{1}" }} ] }}'
    for name, config in {
        "embedder": step.format("tokenizer", "encoder"),
        "retrieve": step.format("embedder", "retriever"),
        "tokenizer": 'backend: "python"',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(config)
    stages = {stage.name: stage.runs for stage in stages_of(tmp_path, ["retrieve"])}
    assert stages == {
        "embedder": {"tokenizer", "encoder"},
        "retriever": {"retriever"},
        "retrieve": {"tokenizer", "encoder", "retriever"},
    }


def test_the_end_of_a_server_that_was_ready_is_not_told_as_a_failed_start(tmp_path: Path) -> None:
    log = "E1 1 1 x.cc:1] \"failed to load 'retrieve' version 1: Internal: once\"\n"
    error = failure(log, log_path=tmp_path / "log", exit_status=-9, was_ready=True)
    assert error.message.startswith("Triton ended with status -9")
    assert "before it was ready" not in error.message
    assert "retrieve did not load" not in error.message
