"""Warnings about something that may go on for long: at most one in a while."""

import logging
import time
from collections.abc import Callable
from typing import Final

_EVERY_S: Final = 60.0


class SeldomLog:
    """Passes a warning on to `logger` once every `every_s` seconds, with the number of those that were left out before it."""

    def __init__(
        self, logger: logging.Logger, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._every_s, self._clock = logger, every_s, clock
        self._next_s = float("-inf")
        self._left_out = 0

    def tell(self, message: str) -> None:
        """Log it, or count it."""
        now_s = self._clock()
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f" ({self._left_out} more like it since the last message)" if self._left_out else ""
        self._logger.warning("%s%s", message, more)
        self._next_s, self._left_out = now_s + self._every_s, 0
