"""The servers of a client, what was observed of each, and which of them a request goes to."""

import math
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

# For how long a server is left alone after it was found gone, draining or not ready: longer with each time in a row.
_FIRST_AVOID_S: Final = 0.25
_LONGEST_AVOID_S: Final = 5.0
_MOST_DOUBLINGS: Final = 16


class Server:
    """One server: its address and what is known of it, which `Servers` alone writes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected = False
        self.failures = 0
        self.avoided_until_s = -math.inf


class Servers:
    """At least one server. Requests go to them in turn; one that failed is passed over for a while, as long as there is another.

    Threads and tasks may share it. `clock` gives monotonic seconds; `first` is the place at which turns begin. One that is not
    `connected` is asked whether it is there before it gets a request.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        clock: Callable[[], float],
        *,
        first: int = 0,
        lock: AbstractContextManager[bool] | None = None,
    ) -> None:
        self._servers, self._clock = tuple(servers), clock
        self._next = first
        self._lock = lock or threading.Lock()

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def only(self, server: Server) -> "Servers":
        """One of them alone."""
        return Servers([server], self._clock, lock=self._lock)

    def choose(self, tried: Collection[Server]) -> Server:
        """The next in turn that was not tried and is not avoided; else the one not tried whose time comes first; else any."""
        with self._lock:
            turn = self._servers[self._next % len(self) :] + self._servers[: self._next % len(self)]
            now_s = self._clock()
            left = [server for server in turn if server not in tried] or list(turn)
            chosen = min(
                left, key=lambda server: max(0.0, server.avoided_until_s - now_s)
            )  # of equals the first in turn
            self._next = self._servers.index(chosen) + 1
            return chosen

    def reached(self, server: Server) -> None:
        """Note that a server answered the question whether it lives, which it does while it drains, too."""
        with self._lock:
            server.connected = True

    def found_ready(self, server: Server) -> None:
        """Note that a server says that it is ready: it need not be avoided any longer."""
        with self._lock:
            server.connected, server.avoided_until_s = True, -math.inf

    def unanswered(self, server: Server) -> None:
        """Note a call that was not answered: it was late or turned away, or its connection was lost."""
        with self._lock:
            server.connected = False

    def failed(self, server: Server) -> None:
        """Note that a server is gone, drains or is not ready: it is passed over.

        A client with one server has nothing to pass over to.
        """
        with self._lock:
            server.connected, now_s = False, self._clock()
            if len(self) == 1 or server.avoided_until_s > now_s:  # several requests find the same
                return
            longest_s = _FIRST_AVOID_S * 2.0 ** min(server.failures, _MOST_DOUBLINGS)
            server.failures += 1
            server.avoided_until_s = now_s + min(_LONGEST_AVOID_S, longest_s)

    def succeeded(self, server: Server) -> None:
        """Note an answer. One from a server that is avoided says nothing: one that drains still ends well what it had begun."""
        with self._lock:
            if server.failures and server.avoided_until_s <= self._clock():
                server.failures = 0
