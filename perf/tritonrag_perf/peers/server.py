"""A peer's server while it is measured: started on a free port, waited for, and gone with all its processes afterwards.

Its processes are found by a mark in their environment, which children inherit: some libraries start theirs in sessions of
their own.
"""

import http.client
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag.ports import choose_ports, is_free
from tritonrag.processes import kill_all
from tritonrag_client.errors import InternalError, UnavailableError

HOST: Final = "127.0.0.1"
_MARK: Final = "PEER_MARK"
_POLL_S: Final = 0.05
_LAST_LINES: Final = 20
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPeer:
    """A server that answers. `started_s` is how long it took from its start to the first answer."""

    port: int
    mark: str
    started_s: float

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    def pids(self) -> list[int]:
        """Its processes that live."""
        return marked(self.mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait: for the first answer, and after SIGTERM before SIGKILL."""

    start_s: float = 120.0
    stop_s: float = 10.0


def marked(mark: str) -> list[int]:
    """The living processes that bear the mark, by process id; one that has ended and waits to be read is none."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked, or is another user's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return sorted(found)


@contextmanager
def peer_server(
    command: list[str], environment: dict[str, str], *, port: int, log: Path, patience: Patience | None = None
) -> Iterator[RunningPeer]:
    """Run `command`, which is to answer POST /retrieve on `port`, until the block is left.

    Raises UnavailableError with the end of its log where it does not answer, InternalError where something of it can't be ended.
    """
    patience, mark = patience or Patience(), secrets.token_hex(8)
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**environment, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
    try:
        _wait_for_answer(process, port, log, began_s + patience.start_s)
        yield RunningPeer(port=port, mark=mark, started_s=time.monotonic() - began_s)
    finally:
        _stop(process, mark, patience.stop_s)
    _require_gone(mark, port, patience.stop_s)


def free_port() -> int:
    """A port that nobody listens on."""
    return choose_ports(HOST, {"peer": 0})["peer"]


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, log: Path, deadline_s: float) -> None:
    while not _answers(port):
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline_s:
            what = "does not answer in time" if ended is None else f"ended with status {ended}"
            last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
            raise UnavailableError(f"the peer {what}; the end of its log:\n{last}")
        time.sleep(_POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        body = json.dumps({"question": "Is anybody there?", "k": 1})
        connection.request("POST", "/retrieve", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes], mark: str, timeout_s: float) -> None:
    """SIGTERM to its group, which its library ends by; then SIGKILL to all that bears the mark."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    kill_all(lambda: marked(mark))
    process.wait()


def _require_gone(mark: str, port: int, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while (left := marked(mark)) or not is_free(HOST, port):
        if time.monotonic() > deadline_s:
            raise InternalError(f"a peer left something behind: processes {left}, or port {port}")
        time.sleep(_POLL_S)
