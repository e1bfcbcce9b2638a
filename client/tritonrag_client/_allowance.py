"""How many retries a client may still send, whatever its requests meet."""

import threading
from collections.abc import Callable
from typing import Final

from tritonrag_client.options import RetryPolicy

_ROUNDING: Final = 1e-9  # ten tenths shall make a retry


class RetryAllowance:
    """A client's retries as a bucket of tokens. Threads and tasks may share it. `clock` gives monotonic seconds.

    It begins with `spare` and never holds more (one, where that is 0); every request brings `share` of a retry, and so does every
    second, so that a client with few requests has its spare ones back after a while. In t seconds n requests become at most
    n + spare + share * (n + t) tries.

    After gRPC's retry throttling (proposal A6) and "Handling Overload" in Google's "Site Reliability Engineering" (2016).
    """

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._share, self._most = policy.share, float(max(1, policy.spare))
        self._left, self._clock, self._counted_s = float(policy.spare), clock, clock()
        self._lock = threading.Lock()

    def request(self) -> None:
        """Count a request, not its retries."""
        with self._lock:
            self._earn(1)

    def take(self) -> bool:
        """Whether there is one more retry; it counts as sent."""
        with self._lock:
            self._earn(0)
            if self._left < 1 - _ROUNDING:
                return False
            self._left -= 1
            return True

    def _earn(self, requests: int) -> None:
        now_s = self._clock()
        earned = self._share * (requests + now_s - self._counted_s)
        self._counted_s, self._left = now_s, min(self._most, self._left + earned)
