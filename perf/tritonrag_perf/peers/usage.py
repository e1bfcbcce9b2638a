"""What the processes of a server take: CPU time, memory, and whether they have come to rest."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tritonrag_perf.process_use import cpu_seconds

_PROC: Final = Path("/proc")
_LOOK_S: Final = 0.5
_QUIET_CORES: Final = 0.25  # less is housekeeping, which some libraries never stop


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


def wait_for_rest(pids: Callable[[], Iterable[int]], *, timeout_s: float) -> bool:
    """Wait until they take next to no CPU time: a server answers once its first worker is there, and the others still load.

    False where they did not come to rest in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        took_s, began_s = cpu_seconds_of(pids()), time.monotonic()
        time.sleep(_LOOK_S)
        took_s = cpu_seconds_of(pids()) - took_s
        if 0 <= took_s <= _QUIET_CORES * (time.monotonic() - began_s):
            return True
    return False
