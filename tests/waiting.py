"""Tests wait for a condition, with a deadline; they do not sleep."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], deadline_s: float = 30.0) -> bool:
    """Whether the condition came about in time; asked again and again until it has."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
