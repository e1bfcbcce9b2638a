"""The images' health check is run as Docker would run it, against a server that is ready, one that is not, and none."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.unit.deploy_compose import seconds
from tests.unit.deploy_dockerfile import Dockerfile, parse_command

from tritonrag.commands.serve import ServeRequest

REPOSITORY = Path(__file__).parents[2]
NAMES = ("Dockerfile", "Dockerfile.cpu")


def dockerfile(name: str) -> Dockerfile:
    return Dockerfile.parse((REPOSITORY / "deploy" / "docker" / name).read_text())


def command(name: str) -> list[str]:
    """The check's words, with this Python and with the image's files where the repository has them."""
    copied = {each.words()[-1]: str(REPOSITORY / each.words()[0]) for each in dockerfile(name).last("COPY")}
    program, *arguments = dockerfile(name).healthcheck()
    assert program == "python"
    return [sys.executable, *(copied.get(word, word) for word in arguments)]


def check(name: str, port: int | str) -> subprocess.CompletedProcess[str]:
    environment = {"TRITONRAG_HEALTH_PORT": str(port)}
    return subprocess.run(command(name), env=environment, capture_output=True, text=True, check=False)


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers with this status, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_is_ready_is_healthy(name: str) -> None:
    with answering(200) as (port, asked):
        assert check(name, port).returncode == 0
    assert asked == ["/health/ready"]


@pytest.mark.parametrize("status", [400, 404, 500, 503, 302])
def test_a_server_that_says_anything_else_is_not_and_the_status_is_told(status: int) -> None:
    with answering(status) as (port, _):
        done = check("Dockerfile", port)
    assert done.returncode == 1
    assert str(status) in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_listens_it_is_not_healthy(name: str) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # ours, so that nobody else listens there
        done = check(name, deaf.getsockname()[1])
    assert done.returncode == 1
    assert "no answer" in done.stderr


def test_a_server_that_accepts_and_never_answers_is_given_up_before_docker_gives_up_the_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = check("Dockerfile", silent.getsockname()[1])
    assert done.returncode == 1
    assert "timed out" in done.stderr


def test_a_server_that_speaks_something_else_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"hello\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = check("Dockerfile", server.getsockname()[1])
        thread.join()
    assert done.returncode == 1
    assert "no answer" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_check_gives_up_before_docker_does(name: str) -> None:
    script = (REPOSITORY / "deploy" / "docker" / "healthcheck.py").read_text()
    own_s = float(script.partition("TIMEOUT_S = ")[2].split()[0])
    timeout = dockerfile(name).only("HEALTHCHECK").option("timeout")
    assert timeout is not None
    assert own_s < seconds(timeout)


@pytest.mark.parametrize("name", NAMES)
def test_no_failed_check_counts_as_long_as_serve_gives_triton_to_get_ready(name: str) -> None:
    options = parse_command(dockerfile(name).command_line()[1:])
    period = dockerfile(name).only("HEALTHCHECK").option("start-period")
    assert period is not None
    assert seconds(period) >= ServeRequest(**options).serve_options().ready_timeout_s


def test_the_page_names_the_variable_that_the_check_reads() -> None:
    page = (REPOSITORY / "docs" / "production.md").read_text()
    script = (REPOSITORY / "deploy" / "docker" / "healthcheck.py").read_text()
    (line,) = (line for line in page.splitlines() if "the health check reads" in line)
    assert set(re.findall(r"TRITONRAG_\w+", line)) == set(re.findall(r"TRITONRAG_\w+", script))
