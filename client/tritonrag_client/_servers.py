"""The servers of a client, and which of them a request goes to."""

import math
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

# For how long a server is left alone after it was found gone, draining or not ready: longer with each time in a row.
_FIRST_AVOID_S: Final = 0.25
_LONGEST_AVOID_S: Final = 5.0
_MOST_DOUBLINGS: Final = 16


class Server:
    """One server: its address and what is known of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected = False
        self.failures = 0
        self.avoided_until_s = -math.inf


class Servers:
    """At least one server. Requests go to them in turn; one that failed is passed over for a while, as long as there is another.

    Threads and tasks may share it. `clock` gives monotonic seconds; `first` is the place at which turns begin.
    """

    def __init__(self, servers: Sequence[Server], clock: Callable[[], float], *, first: int = 0) -> None:
        self._servers, self._clock = tuple(servers), clock
        self._next = first
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def only(self, server: Server) -> "Servers":
        """One of them alone."""
        return Servers([server], self._clock)

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

    def failed(self, server: Server) -> None:
        """Note that a server is gone, drains or is not ready: it is passed over, and asked before it gets a request again.

        A client with one server has nothing to pass over to.
        """
        with self._lock:
            now_s = self._clock()
            if len(self) == 1 or server.avoided_until_s > now_s:  # several requests find the same
                return
            longest_s = _FIRST_AVOID_S * 2.0 ** min(server.failures, _MOST_DOUBLINGS)
            server.failures, server.connected = server.failures + 1, False
            server.avoided_until_s = now_s + min(_LONGEST_AVOID_S, longest_s)

    def found_ready(self, server: Server) -> None:
        """Note that a server says that it is ready: it need not be avoided any longer."""
        with self._lock:
            server.avoided_until_s = -math.inf

    def succeeded(self, server: Server) -> None:
        """Note an answer. One from a server that is avoided says nothing: one that drains still ends well what it had begun."""
        if server.failures and server.avoided_until_s <= self._clock():
            server.failures = 0
