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
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A living process: its id and the start of its command line."""

    pid: int
    command: str


def stat_fields(folder: Path) -> list[str]:
    """What /proc/PID/stat, or a thread's, says behind the name, which may be any bytes: the state comes first.

    Raises OSError where the process has ended.
    """
    # proc(5): pid (comm) state ppid pgrp session ...; comm may itself hold spaces and parentheses.
    return (folder / "stat").read_bytes().rpartition(b")")[2].decode().split()


def session_members(session_id: int) -> list[Process]:
    """Every process of a session that still runs (zombies have ended and only wait to be read), by process id.

    Triton is started as the leader of a session of its own, so this finds its Python stubs even when Triton itself is gone.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended while we looked
            state, _, _, session = stat_fields(entry)[:4]
            if int(session) == session_id and state not in "ZX":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                members.append(Process(pid=int(entry.name), command=command[:120]))
    return sorted(members, key=lambda process: process.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the kernel says of a process now: its state's letter, CPU seconds so far, and when it began, in the kernel's ticks."""

    state: str
    cpu_s: float
    began: int

    @property
    def is_dead(self) -> bool:
        """Whether it has ended and only waits to be read."""
        return self.state in "ZX"

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped it; a debugger's stop is another."""
        return self.state == "T"


def read_process(pid: int) -> Reading | None:
    """A process as it is now; None where there is none."""
    try:
        fields = stat_fields(Path(f"/proc/{pid}"))
    except OSError:
        return None
    return Reading(state=fields[0], cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S, began=int(fields[19]))


def has_work(pid: int) -> bool:
    """Whether one of its threads runs, wants to, or waits for a disk: what is starved or slow is not hung."""
    with suppress(OSError):  # it ended while we looked
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if stat_fields(thread)[0] in "RD":
                return True
    return False


def command_of(pid: int) -> list[str]:
    """Its command line as arguments; empty where there is none, or it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


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


def exit_status(pid: int) -> int | None:
    """How our child ended, as subprocess tells it, negative for a signal; None where it runs. It is left to be read."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # its status was read already
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def shared_memory(prefix: str) -> list[Path]:
    """The shared-memory regions whose names begin with `prefix`."""
    return sorted(SHARED_MEMORY.glob(f"{prefix}*"))


def unlink_shared_memory(prefix: str, names: set[str]) -> list[str]:
    """Unlink the regions of these names, those alone that begin with `prefix`; the names of what was there."""
    found = [region for region in shared_memory(prefix) if region.name in names]
    for region in found:
        region.unlink(missing_ok=True)
    return [region.name for region in found]


def remove_shared_memory(prefix: str) -> None:
    """Unlink the regions whose names begin with `prefix`: Triton leaks a stub's region when both are killed."""
    for region in shared_memory(prefix):
        region.unlink(missing_ok=True)
