"""What `generator` asks of `retrieve` has the asker's time, and is not waited for once nobody wants the answer."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.wire import Wire, request, strings
from tests.waiting import wait_until
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag_backends.settings import Settings
from tritonrag_client.contract import EMBEDDER, GENERATOR, RETRIEVE

QUESTION = "How do I parse a JSON document?"

# Writes down the time that each request has, and answers, that it can't, as soon as the file `go` is there.
BLOCKED = """
import os
import time

import triton_python_backend_utils as pb_utils

FOLDER = os.path.dirname(__file__)


class TritonPythonModel:
    def execute(self, requests):
        self.note("begun", [str(request.timeout()) for request in requests])
        while not os.path.exists(os.path.join(FOLDER, "go")):
            time.sleep(0.005)
        self.note("ended", ["-"] * len(requests))
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError("unavailable: blocked")) for _ in requests]

    def note(self, name, lines):
        with open(os.path.join(FOLDER, name), "a") as file:
            file.writelines(f"{line}\\n" for line in lines)
"""


class Blocked:
    """A server whose `retrieve` answers nothing before `go`."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self._folder, self.wire = folder, wire
        self._before = len(self._lines("begun"))

    @property
    def timeouts_us(self) -> list[int]:
        """Of the requests that `retrieve` has been given in this test."""
        return [int(line) for line in self._lines("begun")][self._before :]

    def running(self) -> float:
        return self.wire.metric("tritonrag_generations_running")

    def go(self) -> None:
        """Let `retrieve` answer what it has."""
        (self._folder / "go").touch()
        assert wait_until(lambda: len(self._lines("ended")) == len(self._lines("begun")))
        assert wait_until(lambda: self.running() == 0)
        (self._folder / "go").unlink()

    def _lines(self, name: str) -> list[str]:
        file = self._folder / name
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blocked")
    for name in (EMBEDDER, GENERATOR, RETRIEVE):
        shutil.copytree(CHECKOUT_REPOSITORY / name, folder / name)
    (folder / RETRIEVE / "1" / "model.py").write_text(BLOCKED)
    return folder


@pytest.fixture(scope="module")
def wire(settings: Settings, repository: Path) -> Iterator[Wire]:
    triton = TritonServer()
    with triton:
        options = ServeOptions(
            settings=settings, model_repository=repository, models=(GENERATOR, RETRIEVE), drain_timeout_s=2
        )
        connection = Wire(triton.start(options))
        yield connection
        connection.close()
    assert triton.check_left_behind() == []


@pytest.fixture
def blocked(repository: Path, wire: Wire) -> Iterator[Blocked]:
    one = Blocked(repository / RETRIEVE / "1", wire)
    yield one
    one.go()


def test_retrieve_is_told_how_much_time_is_left(blocked: Blocked) -> None:
    message = request(GENERATOR, {"text_input": QUESTION})
    message.parameters["timeout"].int64_param = 20_000_000
    call = blocked.wire.stub.ModelStreamInfer(iter([message]))
    assert wait_until(lambda: len(blocked.timeouts_us) == 1)
    assert 0 < blocked.timeouts_us[0] <= 20_000_000
    blocked.go()
    assert "unavailable: blocked" in next(call).error_message


def test_whoever_names_no_time_has_the_servers(blocked: Blocked, settings: Settings) -> None:
    call = blocked.wire.stub.ModelStreamInfer(iter([request(GENERATOR, {"text_input": QUESTION})]))
    assert wait_until(lambda: len(blocked.timeouts_us) == 1)
    assert 0 < blocked.timeouts_us[0] <= settings.generator.timeout_s * 1e6
    blocked.go()
    assert next(call).error_message


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_ends_the_wait_for_passages(blocked: Blocked, stream: bool) -> None:
    with ThreadPoolExecutor(1) as asking:
        message = request(GENERATOR, {"text_input": QUESTION, "stream": stream}, request_id="mine")
        asked = asking.submit(blocked.wire.stream, message)
        assert wait_until(lambda: len(blocked.timeouts_us) == 1)
        assert blocked.running() == 1
        blocked.wire.stream(request(GENERATOR, {"text_input": QUESTION, "stop": True}, request_id="mine"))
        (answer,) = asked.result(30)
    assert isinstance(answer, dict)
    assert strings(answer["finish_reason"]) == [b"cancelled"]
    assert strings(answer["sources"]) == [b"[]"]
    assert wait_until(lambda: blocked.running() == 0)


def test_a_client_that_leaves_ends_the_wait_for_passages(blocked: Blocked) -> None:
    call = blocked.wire.stub.ModelStreamInfer(iter([request(GENERATOR, {"text_input": QUESTION})]))
    assert wait_until(lambda: len(blocked.timeouts_us) == 1)
    assert blocked.running() == 1
    call.cancel()
    assert wait_until(lambda: blocked.running() == 0)
