"""A `tritonrag serve` of our own to break things in, and the ways in which they are broken."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonrag.commands.health import read_health
from tritonrag.supervising.stubs import find_stubs
from tritonrag_client.contract import EMBEDDER, GENERATOR, RETRIEVE, RETRIEVER
from tritonrag_client.errors import InternalError, UnavailableError

_SERVICES: Final = ("http", "grpc", "metrics", "health")
_READY_S: Final = 60.0
_POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that is ready, by what it said of itself then."""

    said: dict[str, Any]

    @property
    def grpc_url(self) -> str:
        """What a client takes."""
        return f"{self.said['host']}:{self.said['grpc_port']}"

    @property
    def triton_pid(self) -> int:
        """Of the Triton that was started first."""
        return int(self.said["triton_pid"])

    def health(self) -> dict[str, Any]:
        """What it says of its health. Raises UnavailableError."""
        return read_health(f"http://{self.said['host']}:{self.said['health_port']}")

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            return bool(self.health()["ready"])
        except UnavailableError:
            return False

    def stub(self, model: str) -> int:
        """The process id of one of a model's stubs. Raises InternalError where it has none."""
        pids = sorted(stub.pid for stub in find_stubs(self.triton_pid) if stub.model == model)
        if not pids:
            raise InternalError(f"{model} has no process")
        return pids[0]


Fault = Callable[[Served], None]


def _to_stub(model: str, number: signal.Signals) -> Fault:
    return lambda served: os.kill(served.stub(model), number)


def _to_triton(number: signal.Signals) -> Fault:
    return lambda served: os.kill(served.triton_pid, number)


def _both(served: Served) -> None:
    stub = served.stub(RETRIEVE)
    os.kill(stub, signal.SIGKILL)
    os.kill(served.triton_pid, signal.SIGKILL)


FAULTS: Final[dict[str, Fault]] = {
    **{f"kill {m}": _to_stub(m, signal.SIGKILL) for m in (EMBEDDER, RETRIEVER, RETRIEVE, GENERATOR)},
    **{f"stop {m}": _to_stub(m, signal.SIGSTOP) for m in (EMBEDDER, RETRIEVER, RETRIEVE, GENERATOR)},
    "kill triton": _to_triton(signal.SIGKILL),
    "stop triton": _to_triton(signal.SIGSTOP),
    "kill triton and a stub": _both,
}


def until(condition: Callable[[], bool], timeout_s: float) -> float | None:
    """The seconds until a condition came about; None where it did not in time."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > timeout_s:
            return None
        time.sleep(_POLL_S)
    return time.monotonic() - began_s


@contextmanager
def serving(index: Path, embedder: Path) -> Iterator[Served]:
    """A server of its own, ended at the end. Raises InternalError where it does not get ready; it says itself why not."""
    command = [str(Path(sys.executable).with_name("tritonrag")), "serve", "--json"]
    command += ["--index", str(index), "--embedder", str(embedder)]
    command += [argument for name in _SERVICES for argument in (f"--{name}-port", "0")]
    # Triton waits its whole drain time for a model that was reloaded after a request had failed on its dead process.
    environment = {"TRITONRAG_DRAIN_TIMEOUT_S": "5", **os.environ}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = "" if process.stdout is None else process.stdout.readline()
            if not line:
                told = "" if process.stderr is None else process.stderr.read()
                raise InternalError(f"`tritonrag serve` ended before it was ready: {told.strip()}")
            served = Served(said=json.loads(line))
            if until(served.is_ready, _READY_S) is None:
                raise InternalError(f"`tritonrag serve` is not ready: {served.health()['degraded']}")
            yield served
        finally:
            process.terminate()
            process.communicate()
