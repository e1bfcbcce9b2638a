"""transformers' own OpenAI-compatible server over a model folder, as a program of its own on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from tritonrag_client.errors import UnavailableError

_STOP_S: Final = 20.0
_POLL_S: Final = 0.1
_TAIL: Final = 1_500


@contextmanager
def transformers_server(model: Path, log: Path, *, device: str, start_s: float) -> Iterator[str]:
    """The address up to /v1 of a server that is ready; the model's name there is the folder's path.

    Raises UnavailableError with the end of its log where it is not ready within `start_s`.
    """
    port = _free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--device", device, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if device == "cpu":
        environment["OMP_NUM_THREADS"] = "1"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, port, log, start_s)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path, start_s: float) -> None:
    until_s = time.monotonic() + start_s
    while time.monotonic() < until_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == HTTPStatus.OK:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    what = "is not ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise UnavailableError(f"transformers serve {what}; its log ends: {log.read_text(errors='replace')[-_TAIL:]}")
