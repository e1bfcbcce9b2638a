"""A Triton that is started is ready, one that can't be says why, and one that is stopped is gone without trace."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server import toy
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.processes import has_exited, session_members, shared_memory
from tritonrag.triton_command import ServeOptions
from tritonrag.triton_home import HOME_PREFIX, remove_abandoned_homes
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return toy.make_repository(tmp_path / "repository")


@pytest.fixture
def options(repository: Path) -> ServeOptions:
    return ServeOptions(model_repository=repository, models=("wait",))


def test_a_started_server_answers_on_free_ports_and_a_stopped_one_leaves_nothing(options: ServeOptions) -> None:
    server = TritonServer()
    with server:
        running = server.start(options)
        assert len({running.http_port, running.grpc_port, running.metrics_port, 0}) == 4
        assert toy.sleep_for(running.http_url, 0.0) == 0.0
        for port in (running.grpc_port, running.metrics_port):
            socket.create_connection((running.host, port), timeout=5).close()
        assert shared_memory(running.shm_prefix), "its shared memory is not under its own prefix"
        assert any("stub" in process.command for process in session_members(running.pid))
        assert server.check_left_behind(), "a server that runs would go unnoticed"
    assert server.check_left_behind() == []


def test_a_request_in_flight_is_answered_while_the_server_stops(options: ServeOptions, repository: Path) -> None:
    server = TritonServer()
    with server, ThreadPoolExecutor() as pool:
        running = server.start(options)
        answer = pool.submit(toy.sleep_for, running.http_url, 2.0)
        assert wait_until(lambda: toy.begun(repository))
        server.stop()
        assert answer.result(timeout=10) == 2.0
    assert server.check_left_behind() == []


def test_a_request_longer_than_the_patience_does_not_hold_the_stop_up(options: ServeOptions, repository: Path) -> None:
    server = TritonServer()
    with server, ThreadPoolExecutor() as pool:
        running = server.start(options)
        answer = pool.submit(toy.sleep_for, running.http_url, 600.0)
        assert wait_until(lambda: toy.begun(repository))
        server.stop(timeout_s=1.0)
        assert answer.exception(timeout=10) is not None
    assert server.check_left_behind() == []


def test_stubs_of_a_triton_that_was_killed_go_with_it(options: ServeOptions) -> None:
    server = TritonServer()
    with server:
        running = server.start(options)
        stub = next(process for process in session_members(running.pid) if process.pid != running.pid)
        os.kill(stub.pid, signal.SIGKILL)
        os.kill(running.pid, signal.SIGKILL)
    assert server.check_left_behind() == []


def test_a_triton_that_dies_is_told_with_its_log(options: ServeOptions) -> None:
    with TritonServer() as server:
        running = server.start(options)
        descriptor = server.pidfd()
        os.kill(running.pid, signal.SIGKILL)
        assert wait_until(lambda: has_exited(running.pid))  # later than its first thread, when it has many
        os.close(descriptor)
        message = server.failure().message
    log = Path(message.rpartition("log: ")[2].rstrip(")"))
    assert "status -9" in message
    assert "loading: wait" in log.read_text()
    log.unlink()


def test_a_taken_port_is_named_with_its_option(options: ServeOptions) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        server = TritonServer()
        with server, pytest.raises(BadRequestError, match=rf"--grpc-port {port} .*--grpc-port 0"):
            server.start(ServeOptions(model_repository=options.model_repository, models=("wait",), grpc_port=port))
        assert server.check_left_behind() == []


def test_a_model_that_fails_with_a_coded_error_gives_that_error_and_no_traceback(repository: Path) -> None:
    server = TritonServer()
    with server, pytest.raises(NotFoundError) as caught:
        server.start(ServeOptions(model_repository=repository, models=("broken",)))
    message, _, log = caught.value.message.partition(" (log: ")
    assert message == "the index directory /data/index is missing; build one"
    Path(log.rstrip(")")).unlink()
    assert server.check_left_behind() == []


def test_a_model_that_fails_otherwise_is_named_with_its_reason(tmp_path: Path) -> None:
    repository, log = toy.make_repository(tmp_path / "repository", error=toy.PLAIN), tmp_path / "triton.log"
    with TritonServer() as server, pytest.raises(InternalError) as caught:
        server.start(ServeOptions(model_repository=repository, models=("broken",), log_file=log))
    assert caught.value.message == f"the model broken did not load: ValueError: no such thing (log: {log})"
    assert log.exists()


def test_a_model_that_is_not_there_is_named(options: ServeOptions, tmp_path: Path) -> None:
    with TritonServer() as server, pytest.raises(InternalError, match="oracle"):
        server.start(
            ServeOptions(
                model_repository=options.model_repository, models=("oracle",), log_file=tmp_path / "triton.log"
            )
        )


def test_giving_up_while_it_starts_leaves_nothing(options: ServeOptions) -> None:
    server = TritonServer(interrupted=lambda: True)
    with server, pytest.raises(KeyboardInterrupt):
        server.start(options)
    assert server.check_left_behind() == []


def test_a_killed_parent_leaves_no_triton_and_the_next_start_tidies_up(repository: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tritonrag.launcher import TritonServer\n"
        "from tritonrag.triton_command import ServeOptions\n"
        "running = TritonServer().start(ServeOptions(model_repository=Path(sys.argv[1]), models=('wait',)))\n"
        "print(running.pid, running.shm_prefix, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(repository)], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid, prefix = parent.stdout.readline().split()
        assert session_members(int(pid))
        parent.kill()
    assert wait_until(lambda: not session_members(int(pid)))
    home = tmp_path / prefix.decode()
    assert home.is_dir()
    os.utime(home, (0, 0))  # as if it had been made long ago
    subprocess.run(
        [sys.executable, "-c", "from tritonrag.triton_home import remove_abandoned_homes as f; f()"],
        check=True,
        env=environment,
    )
    assert not home.exists()
    assert shared_memory(prefix.decode()) == []


def test_the_home_of_a_running_server_is_never_tidied_away(options: ServeOptions) -> None:
    with TritonServer() as server:
        running = server.start(options)
        home = running.log_path.parent
        assert home.name.startswith(HOME_PREFIX)
        assert home.stat().st_mode & 0o777 == 0o700
        os.utime(home, (0, 0))
        remove_abandoned_homes()
        assert toy.sleep_for(running.http_url, 0.0) == 0.0
        assert home.is_dir()


def test_two_servers_live_side_by_side(options: ServeOptions) -> None:
    first, second = TritonServer(), TritonServer()
    with first:
        one: RunningServer = first.start(options)
        with second:
            second.start(options)
        assert second.check_left_behind() == []
        assert toy.sleep_for(one.http_url, 0.0) == 0.0
    assert first.check_left_behind() == []
