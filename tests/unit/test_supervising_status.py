"""The server's health as it is told, and the end of a server that nobody watches any more."""

import io
import json
from typing import Any, Self

import pytest

from tritonrag.commands import serve
from tritonrag.commands.serve import ServeRequest
from tritonrag.supervising.events import Events
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.status import Status
from tritonrag_client.errors import InternalError


class Told:
    """A status and the events of it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.status = Status(Events(as_json=True, stream=self.stream), SupervisorMetrics())
        judge = Judge([Stage(name="retrieve", runs=frozenset({"retrieve"}))], most_failed_starts=5)
        judge.answered("retrieve", "alive")
        self.status.judged(judge)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]


def test_a_server_that_is_not_watched_any_more_is_not_ready_and_says_so_once() -> None:
    told = Told()
    assert told.status.report.ready
    told.status.ending()
    assert not told.status.report.ready
    assert [one.stage for one in told.status.report.degraded] == ["triton"]
    told.status.ending()
    assert told.events() == ["ready", "not_ready"]


class Ended:
    """Everything around a server whose supervisor has failed; `steps` has what was done to it."""

    ended, port, received = 0, 1, ()

    def __init__(self, *_: Any, **__: Any) -> None:
        self.steps: list[str] = []
        self.told = Told()

    @property
    def status(self) -> Status:
        return self.told.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.steps.append("left")

    def start(self, _options: object) -> None:
        pass

    def over(self, *_: Any, **__: Any) -> Self:
        return self

    def wait(self, _descriptor: int) -> None:
        pass

    def failure(self) -> InternalError:
        assert self.steps == [], "its log is gone"
        return InternalError("the supervisor failed: why")

    def stop(self, *, hurry: Any) -> None:
        assert not self.status.report.ready
        self.steps.append("stopped")
        assert not hurry()
        self.received = (15,)
        assert hurry(), "a signal ends it at once"


@pytest.mark.usefixtures("nothing_set")
def test_where_the_supervisor_failed_serve_is_not_ready_and_stops_triton_before_anything_else_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Ended()
    for name in ("HealthWatch", "StopSignals", "TritonServer"):
        monkeypatch.setattr(serve, name, lambda *_, **__: scene)
    for name in ("require_access", "look_at", "look_at_generator", "look_at_encoder", "_announce", "tell"):
        monkeypatch.setattr(serve, name, lambda *_, **__: None)
    with pytest.raises(InternalError, match="the supervisor failed: why"):
        serve.run(ServeRequest())
    assert scene.steps[:2] == ["stopped", "left"]
