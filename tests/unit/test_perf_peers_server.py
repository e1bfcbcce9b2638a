"""A peer's server is waited for, and leaves nothing behind."""

import json
import os
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from perf_peers_toys import SCRIPT
from tests.waiting import wait_until

from tritonrag.ports import is_free
from tritonrag_client.errors import UnavailableError
from tritonrag_perf.peers.rest import wait_for_rest
from tritonrag_perf.peers.server import HOST, Patience, RunningPeer, free_port, marked, peer_server
from tritonrag_perf.process_use import cpu_seconds_of, memory_bytes

IGNORES, OBEYS = "signal.SIG_IGN", "lambda *_: sys.exit()"


def command(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def variables(port: int) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PEER_PORT": str(port)}


def alive(pid: int) -> bool:
    """A zombie has ended, and waits to be read by whoever inherited it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def child_of(server: RunningPeer) -> int:
    request = urllib.request.Request(f"{server.url}/retrieve", json.dumps({"question": "q", "k": 1}).encode())
    with urllib.request.urlopen(request) as response:
        return int(json.load(response)["ids"][0])


@pytest.mark.parametrize("on_term", [OBEYS, IGNORES])
def test_a_peer_answers_and_is_gone_afterwards_with_its_children_in_other_sessions(
    tmp_path: Path, on_term: str
) -> None:
    port = free_port()
    script, patience = SCRIPT.format(on_term=on_term), Patience(stop_s=0.5)
    with peer_server(command(script), variables(port), port=port, log=tmp_path / "log", patience=patience) as server:
        child = child_of(server)
        pids = server.pids()
        assert child in pids
        assert len(pids) == 2
        assert memory_bytes(pids) > 2**20
        assert cpu_seconds_of(pids) > 0
        assert server.started_s > 0
    assert not any(map(alive, pids))
    assert is_free(HOST, port)


def test_a_peer_is_gone_when_what_is_done_with_it_fails(tmp_path: Path) -> None:
    port, marks = free_port(), []

    def use(server: RunningPeer) -> None:
        marks.append(server.mark)
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        peer_server(command(SCRIPT.format(on_term=OBEYS)), variables(port), port=port, log=tmp_path / "log") as server,
    ):
        use(server)
    assert marked(marks[0]) == []


def test_a_peer_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    port = free_port()
    script = "print('no such model'); raise SystemExit(3)"
    with (
        pytest.raises(UnavailableError, match=r"(?s)status 3.*no such model"),
        peer_server(command(script), variables(port), port=port, log=tmp_path / "log"),
    ):
        pass


def test_a_peer_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    port, pid_file = free_port(), tmp_path / "pid"
    script = f"import os, signal; open({str(pid_file)!r}, 'w').write(str(os.getpid())); signal.pause()"
    with (
        pytest.raises(UnavailableError, match="does not answer in time"),
        peer_server(
            command(script), variables(port), port=port, log=tmp_path / "log", patience=Patience(start_s=2, stop_s=1)
        ),
    ):
        pass
    assert wait_until(lambda: not alive(int(pid_file.read_text())))


def test_rest_is_when_no_process_takes_cpu_time_any_more() -> None:
    assert wait_for_rest(list, timeout_s=30)
    busy = psutil.Popen(command("while True: pass"))
    try:
        assert wait_until(lambda: cpu_seconds_of([busy.pid]) > 0.05)
        assert not wait_for_rest(lambda: [busy.pid], timeout_s=1)
    finally:
        busy.kill()
        busy.wait()
