"""Tests wait for a condition, with a deadline; they do not sleep."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")
_STILL: Final = 5  # readings, 20 ms and more apart


def wait_until(condition: Callable[[], bool], deadline_s: float = 30.0) -> bool:
    """Whether the condition came about in time; asked again and again until it has."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def settled(read: Callable[[], T]) -> T:
    """What counters say once they are still: Triton counts a request when it is done with it, which may be after its answer."""
    seen = [read()]

    def still() -> bool:
        seen.append(read())
        return len(seen) > _STILL and all(one == seen[-1] for one in seen[-_STILL:])

    assert wait_until(still)
    return seen[-1]
