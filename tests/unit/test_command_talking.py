"""--timeout-s is the time for everything that a command asks: each call gets what the ones before it have left."""

import socket
from collections.abc import Iterator

import pytest
from tests.unit.client.client_double import ANSWER, Context, Message, ScriptedTriton, Value, found, running

from tritonrag import cli
from tritonrag.talking import Patience
from tritonrag.tls_probe import refuse_for_tls
from tritonrag_client import DeadlineError, TlsOptions

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("nothing_set")


class Clock:
    """Stands still unless it is moved on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class SlowToSayThatItLives(ScriptedTriton):
    """Takes some seconds for it, by the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.takes_s = clock, 20.0

    def ServerLive(self, request: Message, context: Context) -> Value:  # noqa: N802 - the service's own name
        self.clock.now_s += self.takes_s
        return super().ServerLive(request, context)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tritonrag.talking.monotonic", clock)
    return clock


@pytest.fixture
def triton(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowToSayThatItLives]:
    scripted = SlowToSayThatItLives(clock)
    with running(scripted) as url:
        monkeypatch.setenv("TRITONRAG_URL", url)
        yield scripted


def test_a_call_gets_what_is_left_and_connecting_three_seconds_of_it(clock: Clock) -> None:
    patience = Patience(30.0)
    given = []
    for passed_s in (0.0, 20.0, 9.0):
        clock.now_s += passed_s
        timeouts = patience.timeouts()
        given.append((timeouts.total_s, timeouts.connect_s))
    assert given == [(30.0, 3.0), (10.0, 3.0), (1.0, 1.0)]
    clock.now_s += 1.0
    with pytest.raises(DeadlineError, match=r"--timeout-s 30;"):
        patience.timeouts()


@pytest.mark.parametrize("command", [["search"], ["ask"], ["ask", "--no-stream"]])
def test_the_question_gets_what_finding_the_server_has_left(triton: SlowToSayThatItLives, command: list[str]) -> None:
    triton.script = [lambda _request, _context: found(["q"])] if command == ["search"] else [ANSWER]
    assert cli.run_command([*command, "Who?", "--timeout-s", "30"]) == 0
    assert 0 < triton.requests[-1].parameters["timeout"].int64_param <= 10_000_000  # in microseconds


@pytest.mark.parametrize("command", ["search", "ask"])
def test_where_nothing_is_left_nothing_is_asked(triton: SlowToSayThatItLives, command: str, capsys: Capture) -> None:
    triton.takes_s = 30.0
    assert cli.run_command([command, "Who?", "--timeout-s", "30"]) == 1
    assert capsys.readouterr().err.startswith("tritonrag: deadline: no complete answer within --timeout-s 30;")
    assert triton.requests == []


def test_a_look_for_a_reason_in_tls_gets_what_is_left(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: Capture, unused_tcp_port: int
) -> None:
    looks_s: list[float] = []

    def look(_url: str, _tls: TlsOptions | None, *, timeout_s: float) -> None:
        looks_s.append(timeout_s)
        clock.now_s += 2.0

    monkeypatch.setattr("tritonrag.talking.refuse_for_tls", look)
    url = f"127.0.0.1:{unused_tcp_port}"
    assert cli.run_command(["search", "Who?", "--timeout-s", "4", "--url", f"{url},{url},{url}"]) == 1
    assert looks_s == [3.0, 2.0, 0.0]
    assert "no server answers" in capsys.readouterr().err


@pytest.mark.parametrize("readings_s", [[0.0, 1000.0], [0.0, 0.0, 1000.0]])
def test_such_a_look_ends_with_its_time_wherever_it_is(
    readings_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(readings_s)
    monkeypatch.setattr("tritonrag.tls_probe.monotonic", lambda: next(readings))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refuse_for_tls(f"127.0.0.1:{silent.getsockname()[1]}", None, timeout_s=900.0)
