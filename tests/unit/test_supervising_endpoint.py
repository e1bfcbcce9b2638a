"""The health port: what it says, to how many, and what `tritonrag health` makes of it."""

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from tests.waiting import wait_until

from tritonrag import cli
from tritonrag.ports import is_free
from tritonrag.supervising.endpoint import _CONNECTIONS, Endpoint
from tritonrag.supervising.events import Events
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.status import Status
from tritonrag_client.errors import BadRequestError

Capture = pytest.CaptureFixture[str]


class Served:
    """A status behind an endpoint."""

    def __init__(self) -> None:
        self.metrics = SupervisorMetrics()
        self.told = io.StringIO()
        events = Events(as_json=True, stream=self.told, count=self.metrics.event)
        self.status = Status(events, self.metrics)
        self.judge = Judge([Stage(name="retrieve", runs=frozenset({"retrieve"}))], most_failed_starts=5)
        self.endpoint = Endpoint("127.0.0.1", 0, report=lambda: self.status.report, metrics=self.metrics.exposition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.endpoint.port}"

    def become_ready(self) -> None:
        self.judge.answered("retrieve", "alive")
        self.status.judged(self.judge)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.told.getvalue().splitlines()]

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    with served.endpoint:
        yield served


def test_a_server_that_starts_lives_and_is_not_ready(served: Served) -> None:
    assert served.get("/health/live") == (200, b'{"live": true}')
    assert served.get("/health/ready")[0] == 503
    health = json.loads(served.get("/health")[1])
    assert health["degraded"] == [{"stage": "triton", "reason": "it is starting"}]


def test_ready_follows_the_judge_and_each_change_is_an_event(served: Served) -> None:
    served.become_ready()
    assert served.get("/health/ready") == (200, b'{"ready": true}')
    assert b"tritonrag_supervisor_ready 1.0" in served.get("/metrics")[1]
    since = json.loads(served.get("/health")[1])["since"]
    served.judge.stub_down("retrieve", "stub_died", "its process 7 died")
    served.status.judged(served.judge)
    served.status.judged(served.judge)
    health = json.loads(served.get("/health")[1])
    assert not health["ready"]
    assert health["live"]
    assert health["degraded"] == [{"stage": "retrieve", "reason": "its process 7 died"}]
    assert health["models"] == {"retrieve": "down"}
    assert health["since"] > since
    assert served.events() == ["ready", "not_ready"]


def test_a_server_that_drains_is_not_ready_whatever_is_judged(served: Served) -> None:
    served.become_ready()
    served.status.drain()
    served.status.judged(served.judge)
    assert served.get("/health/ready")[0] == 503
    assert served.get("/health/live")[0] == 200
    assert json.loads(served.get("/health")[1])["draining"] is True


@pytest.mark.parametrize("path", ["/", "/healthy", "/health/../etc/passwd", "/v2/health/ready"])
def test_other_paths_are_not_there(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


def test_a_question_mark_and_a_slash_make_no_difference(served: Served) -> None:
    assert served.get("/health/live/?verbose=1")[0] == 200


def test_many_who_say_nothing_do_not_use_more_than_their_share_and_leaving_frees_it(served: Served) -> None:
    with ExitStack() as silent:
        for _ in range(3 * _CONNECTIONS):
            silent.enter_context(socket.create_connection(("127.0.0.1", served.endpoint.port), timeout=5))
        assert len(served.endpoint._server._open) <= _CONNECTIONS
    assert wait_until(lambda: _answers(served))


def test_who_says_one_letter_after_the_other_does_not_keep_a_place(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonrag.supervising.endpoint._TIMEOUT_S", 0.5)
    with ExitStack() as slow:
        address = ("127.0.0.1", served.endpoint.port)
        clients = [slow.enter_context(socket.create_connection(address)) for _ in range(_CONNECTIONS)]

        def is_answered_while_they_go_on() -> bool:
            for client in clients:
                with suppress(OSError):
                    client.send(b"G")
            return _answers(served)

        assert wait_until(is_answered_while_they_go_on)


def test_where_no_thread_can_be_had_no_place_is_lost(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr("threading.Thread.start", no_thread)
        assert not any(_answers(served) for _ in range(_CONNECTIONS))
    assert wait_until(lambda: _answers(served))


def _answers(served: Served) -> bool:
    try:
        return served.get("/health/live")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_taken_port_is_named_with_its_option(served: Served) -> None:
    with pytest.raises(BadRequestError, match=rf"--health-port {served.endpoint.port} .*--health-port 0"):
        Endpoint("127.0.0.1", served.endpoint.port, report=lambda: served.status.report, metrics=lambda: b"")


def test_the_port_of_an_endpoint_that_has_answered_can_be_had_again_at_once() -> None:
    served = Served()
    with served.endpoint:
        assert served.get("/health/live")[0] == 200
    assert is_free("127.0.0.1", served.endpoint.port)


@pytest.mark.usefixtures("nothing_set")
class TestTheCommand:
    def test_of_a_ready_server_is_status_0(self, served: Served, capsys: Capture) -> None:
        served.become_ready()
        assert cli.run_command(["health", "--url", served.url]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("ready since ")
        assert "retrieve  good" in out
        assert err == ""

    def test_of_one_that_is_not_is_status_1_and_says_why(self, served: Served, capsys: Capture) -> None:
        assert cli.run_command(["health", "--url", served.url]) == 1
        assert "triton: it is starting" in capsys.readouterr().out

    def test_where_nobody_answers_is_status_2_and_says_what_to_do(self, capsys: Capture) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            assert cli.run_command(["health", "--url", url]) == 2
        assert "tritonrag serve" in capsys.readouterr().err

    def test_in_json_is_what_the_port_says(self, served: Served, capsys: Capture) -> None:
        served.become_ready()
        assert cli.run_command(["health", "--url", served.url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(served.get("/health")[1])

    @pytest.mark.parametrize("url", ["https://127.0.0.1:1", "127.0.0.1", "http://127.0.0.1", "http://x:port"])
    def test_a_url_that_is_none_is_named(self, url: str, capsys: Capture) -> None:
        assert cli.run_command(["health", "--url", url]) == 2
        assert url in capsys.readouterr().err
