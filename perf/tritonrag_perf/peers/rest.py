"""Whether the processes of a server have come to rest."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from tritonrag_perf.process_use import cpu_seconds_of

_LOOK_S: Final = 0.5
_QUIET_CORES: Final = 0.25  # less is housekeeping, which some libraries never stop


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
