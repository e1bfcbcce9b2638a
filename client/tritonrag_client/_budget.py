"""The time of one call, and the tries that fit in it."""

from collections.abc import Callable
from typing import Final

from tritonrag_client._allowance import RetryAllowance
from tritonrag_client._servers import Server, Servers
from tritonrag_client._wire import Message
from tritonrag_client.contract import TIMEOUT
from tritonrag_client.errors import DeadlineError, RagError, UnavailableError
from tritonrag_client.options import RetryPolicy, Timeouts

_LONGEST_US: Final = 2**63 - 1  # the parameter is an int64


class Budget:
    """The seconds that one call has, counted from when this is made. `clock` gives monotonic seconds."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._timeouts, self._clock = timeouts, clock
        self._end_s = clock() + timeouts.total_s

    def left_s(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self._end_s - self._clock()

    def remaining_s(self) -> float:
        """Seconds until the deadline; raises DeadlineError where none are left."""
        left_s = self.left_s()
        if left_s <= 0:
            raise self.spent()
        return left_s

    def connect_s(self) -> float:
        """Seconds that connecting may take; raises DeadlineError where none are left."""
        return min(self._timeouts.connect_s, self.remaining_s())

    def spent(self) -> DeadlineError:
        """The error for a call that has used up its time."""
        return DeadlineError(
            f"no complete answer within total_s = {self._timeouts.total_s:g}; allow more time, or ask for less"
        )


class Tries:
    """The tries of one request: where each goes, and after a failure whether there is another. Used by one call at a time."""

    def __init__(
        self,
        policy: RetryPolicy,
        budget: Budget,
        draw: Callable[[], float],
        *,
        allowance: RetryAllowance,
        servers: Servers,
    ) -> None:
        self._pauses_s = policy.pauses_s(draw, budget.left_s)
        self._allowance, self._servers = allowance, servers
        self._tried: list[Server] = []
        self._losses = 0
        allowance.request()

    def aim(self) -> Server:
        """The server that the next try goes to: one that was not tried yet, as long as there is one."""
        if self.last:
            self._tried.clear()
        self._tried.append(server := self._servers.choose(self._tried))
        return server

    @property
    def server(self) -> Server:
        """Where the last try went."""
        return self._tried[-1]

    @property
    def last(self) -> bool:
        """Whether no server is left that was not tried."""
        return len(self._tried) == len(self._servers)

    def pause_s(self, error: RagError) -> float:
        """Seconds to wait before the next try; raises `error` where there shall be none.

        A server that is gone, drains or is not ready is left for another at once: that adds nothing to anybody's load. So is, once,
        one that was lost with the request. Everything else is a retry, of which a client has so many and no more.
        """
        if isinstance(error, UnavailableError) and error.elsewhere:
            self._servers.failed(self.server)
            self._losses += error.lost
            if not self.last and not (error.lost and self._losses > 1):
                return 0.0
        pause_s = next(self._pauses_s, None) if error.retryable else None
        if pause_s is None or not self._allowance.take():
            raise error
        return pause_s

    def succeeded(self) -> None:
        """Note that the last try was answered."""
        self._servers.succeeded(self.server)


def put_timeout(request: Message, budget: Budget) -> None:
    """Tell the server how long somebody waits for this, by Triton's own request parameter, in microseconds.

    A queue whose policy allows it drops the request after that, and our generator ends its answer. Set anew for each try;
    raises DeadlineError where no time is left. 0 would mean "for ever", so the least is 1.
    """
    request.parameters[TIMEOUT].int64_param = min(_LONGEST_US, max(1, int(budget.remaining_s() * 1e6)))
