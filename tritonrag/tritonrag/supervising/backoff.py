"""When the next repair may begin: at once, then after pauses that double."""

from typing import Final

FIRST_S: Final = 0.5
LONGEST_S: Final = 30.0
CALM_S: Final = 60.0  # after so long without a repair the next one is the first again
_MOST_DOUBLINGS: Final = 16  # past this every pause is the longest, and 2**n stays a float for ever


class Backoff:
    """Counts repairs of one thing. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._repairs = 0
        self._last_s = 0.0

    def pause_s(self) -> float:
        """The pause before the next repair, counted from the end of the last one."""
        if self._repairs == 0:
            return 0.0
        return min(LONGEST_S, FIRST_S * 2.0 ** min(self._repairs - 1, _MOST_DOUBLINGS))

    def is_due(self, now_s: float) -> bool:
        """Whether the next repair may begin."""
        self._forget_calm(now_s)
        return self._repairs == 0 or now_s >= self._last_s + self.pause_s()

    def repaired(self, now_s: float) -> None:
        """A repair has ended, whether it helped or not."""
        self._forget_calm(now_s)
        self._repairs += 1
        self._last_s = now_s

    def _forget_calm(self, now_s: float) -> None:
        if now_s - self._last_s > CALM_S:
            self._repairs = 0
