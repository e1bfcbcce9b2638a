"""What a process and its children hold, as Linux tells it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tritonrag.processes import stat_fields

_PROC = Path("/proc")
_UTIME, _STIME = 11, 12  # fields of /proc/PID/stat after the name: proc(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """Memory that is theirs alone and not a file's, open files, mapped areas; summed over the processes."""

    private_bytes: int
    open_files: int
    mappings: int

    def __str__(self) -> str:
        return f"{self.private_bytes / 2**20:.0f} MiB, {self.open_files} open files, {self.mappings} mappings"


def use_of(pid: int) -> ProcessUse:
    """What the process and its children hold now. Raises OSError where it is gone or another user's."""
    uses = [_own_use(pid)]
    for child in _children(pid):
        with suppress(OSError):  # it ended while we looked
            uses.append(_own_use(child))
    return ProcessUse(
        private_bytes=sum(one.private_bytes for one in uses),
        open_files=sum(one.open_files for one in uses),
        mappings=sum(one.mappings for one in uses),
    )


def _own_use(pid: int) -> ProcessUse:
    folder = _PROC / str(pid)
    return ProcessUse(
        private_bytes=_private_bytes(pid),
        open_files=len(list((folder / "fd").iterdir())),
        mappings=len((folder / "maps").read_text().splitlines()),
    )


def _children(pid: int) -> list[int]:
    tasks = (_PROC / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _private_bytes(pid: int) -> int:
    lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))
    return kib * 1024


def cpu_seconds(pid: int) -> float:
    """CPU time that the process has taken, user and system; 0 where it is gone."""
    try:
        fields = stat_fields(_PROC / str(pid))
    except OSError:
        return 0.0
    return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of(pids: Iterable[int]) -> float:
    """CPU time that these took, user and system, in all their lives."""
    return sum(map(cpu_seconds, pids))


def memory_bytes(pids: Iterable[int]) -> int:
    """Memory of these, what several share counted once (PSS; proc(5), smaps_rollup)."""
    total_kib = 0
    for pid in pids:
        with suppress(OSError):  # it ended while we looked
            lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines()
            total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kib * 1024
