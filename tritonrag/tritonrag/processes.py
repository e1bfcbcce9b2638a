"""What a Triton leaves in the machine while it runs, and how to take it away: its session's processes and its shared memory."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory, not a place for our files
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A living process: its id and the start of its command line."""

    pid: int
    command: str


def session_members(session_id: int) -> list[Process]:
    """Every process of a session that still runs (zombies have ended and only wait to be read), by process id.

    Triton is started as the leader of a session of its own, so this finds its Python stubs even when Triton itself is gone.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended while we looked
            # proc(5): pid (comm) state ppid pgrp session ...; comm may itself hold spaces and parentheses.
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == session_id and state not in "ZX":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                members.append(Process(pid=int(entry.name), command=command[:120]))
    return sorted(members, key=lambda process: process.pid)


def processes_with(is_meant: Callable[[list[str]], bool]) -> list[int]:
    """The process ids of those whose command line, as arguments, `is_meant`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                if is_meant((entry / "cmdline").read_bytes().decode(errors="replace").split("\0")):
                    found.append(int(entry.name))
    return found


def kill_session(session_id: int, *, timeout_s: float = 5.0) -> None:
    """SIGKILL whatever of the session still runs and wait until it is gone; returns without error where nothing was left."""
    kill_all(lambda: [process.pid for process in session_members(session_id)], timeout_s=timeout_s)


def kill_all(find: Callable[[], list[int]], *, timeout_s: float = 5.0) -> None:
    """SIGKILL the processes that `find` names until it names none; returns without error where it names none at first."""
    deadline = time.monotonic() + timeout_s
    while (pids := find()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def has_exited(pid: int) -> bool:
    """Whether our child has ended, leaving its exit status to be read, so that its process id can't be given to another."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # its status was read already
        return True


def shared_memory(prefix: str) -> list[Path]:
    """The shared-memory regions whose names begin with `prefix`."""
    return sorted(SHARED_MEMORY.glob(f"{prefix}*"))


def remove_shared_memory(prefix: str) -> None:
    """Unlink the regions whose names begin with `prefix`: Triton leaks a stub's region when both are killed."""
    for region in shared_memory(prefix):
        region.unlink(missing_ok=True)
