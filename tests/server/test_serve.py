"""`tritonrag serve` as a program: ready on the ports that it says, gone when told to, whatever way it is told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server import toy
from tests.waiting import wait_until
from tritonrag.ports import is_free
from tritonrag.processes import SHARED_MEMORY, session_members

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A running `tritonrag serve` and what it said when it was ready."""

    process: "subprocess.Popen[str]"
    said: dict[str, Any]
    temporary: Path

    @property
    def http_url(self) -> str:
        return f"http://{self.said['host']}:{self.said['http_port']}"

    def left_behind(self) -> list[str]:
        ports = [
            f"port {self.said[f'{name}_port']}"
            for name in ("http", "grpc", "metrics")
            if not is_free("127.0.0.1", self.said[f"{name}_port"])
        ]
        memory = [region.name for region in SHARED_MEMORY.glob(f"{Path(self.said['log']).parent.name}*")]
        return [
            *map(str, session_members(self.said["triton_pid"])),
            *ports,
            *memory,
            *map(str, self.temporary.iterdir()),
        ]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return toy.make_repository(tmp_path / "repository")


@pytest.fixture
def command(tmp_path: Path, repository: Path) -> list[str]:
    index, embedder = toy.make_index(tmp_path / "index"), toy.make_embedder(tmp_path / "embedder")
    program = [
        str(Path(sys.executable).with_name("tritonrag")),
        "serve",
        "--json",
        "--model-repository",
        str(repository),
    ]
    ports = [argument for name in ("http", "grpc", "metrics", "health") for argument in (f"--{name}-port", "0")]
    return [*program, "--index", str(index), "--embedder", str(embedder), *ports]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITONRAG_")}
    return {**clean, "TMPDIR": str(temporary)}


@pytest.fixture
def unwatched(environment: dict[str, str]) -> None:
    """Without the supervisor, which would start Triton again."""
    environment["TRITONRAG_SUPERVISOR_ENABLED"] = "false"


@pytest.fixture
def serve(command: list[str], environment: dict[str, str]) -> Iterator[Serve]:
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=TIMEOUT_S)
        yield Serve(process=process, said=json.loads(line), temporary=Path(environment["TMPDIR"]))
        process.kill()


def test_one_line_of_json_says_where_it_is_ready(serve: Serve) -> None:
    assert toy.sleep_for(serve.http_url, 0.0, "rag") == 0.0
    assert serve.said["pid"] == serve.process.pid
    assert serve.said["index_version"] == 1
    serve.process.send_signal(signal.SIGTERM)
    rest, _ = serve.process.communicate(timeout=TIMEOUT_S)
    assert rest == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_it_finish_what_has_begun_and_leaves_nothing(
    serve: Serve, repository: Path, number: signal.Signals
) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(toy.sleep_for, serve.http_url, 2.0, "rag")
        assert wait_until(lambda: toy.begun(repository, "rag"))
        serve.process.send_signal(number)
        assert answer.result(timeout=TIMEOUT_S) == 2.0
    assert serve.process.wait(TIMEOUT_S) == 0
    assert serve.left_behind() == []


def test_a_second_ctrl_c_ends_it_at_once(serve: Serve, repository: Path) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(toy.sleep_for, serve.http_url, 600.0, "rag")
        assert wait_until(lambda: toy.begun(repository, "rag"))
        serve.process.send_signal(signal.SIGINT)
        assert serve.process.stderr is not None
        while "once more" not in serve.process.stderr.readline():
            assert serve.process.poll() is None
        serve.process.send_signal(signal.SIGINT)
        assert serve.process.wait(TIMEOUT_S) == 0
        assert answer.exception(timeout=TIMEOUT_S) is not None
    assert serve.left_behind() == []


def test_killed_outright_it_leaves_no_triton(serve: Serve) -> None:
    serve.process.kill()
    assert wait_until(lambda: not session_members(serve.said["triton_pid"]))
    assert all(is_free("127.0.0.1", serve.said[f"{name}_port"]) for name in ("http", "grpc", "metrics"))


@pytest.mark.usefixtures("unwatched")
def test_a_triton_that_dies_ends_it_with_an_error_that_names_the_log(serve: Serve) -> None:
    os.kill(serve.said["triton_pid"], signal.SIGKILL)
    _, errors = serve.process.communicate(timeout=TIMEOUT_S)
    assert serve.process.returncode == 1
    last = errors.splitlines()[-1]
    assert last.startswith("tritonrag: internal: Triton ended with status -9")
    assert Path(last.rpartition("log: ")[2].rstrip(")")).is_file()
    assert session_members(serve.said["triton_pid"]) == []


def test_a_signal_while_it_starts_ends_it_and_leaves_nothing(command: list[str], environment: dict[str, str]) -> None:
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "starting Triton" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stderr.read()
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_every_option_is_also_an_environment_variable(command: list[str], environment: dict[str, str]) -> None:
    named = {command[i].removeprefix("--"): command[i + 1] for i in range(3, len(command), 2)}
    names = {"index": "INDEX", "embedder": "EMBEDDER_MODEL"}
    given = {f"TRITONRAG_{names.get(name, name.upper().replace('-', '_'))}": value for name, value in named.items()}
    with subprocess.Popen(command[:3], env={**environment, **given}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["index"] == named["index"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
