"""What `ask` and `search` share: a client for the given server, the time that is left, and a clear word where none answers."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from tritonrag.tls_probe import refuse_for_tls
from tritonrag_client import RagClient, Timeouts, TlsOptions
from tritonrag_client.errors import BadRequestError, DeadlineError, UnavailableError

_CONNECT_S = 3.0
_LAST_PORT = 65535


class Patience:
    """The seconds of --timeout-s, counted from when this is made: for everything that a command asks. Raises BadRequestError."""

    def __init__(self, timeout_s: float) -> None:
        if not 0 < timeout_s < math.inf:
            raise BadRequestError(f"--timeout-s is {timeout_s:g}; give a number of seconds above 0")
        self._timeout_s, self._end_s = timeout_s, monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds until the end, negative after it."""
        return self._end_s - monotonic()

    def timeouts(self) -> Timeouts:
        """What is left, for the next call. Raises DeadlineError where nothing is."""
        left_s = self.left_s()
        if left_s <= 0:
            raise self.spent()
        return Timeouts(connect_s=min(_CONNECT_S, left_s), total_s=left_s)

    def spent(self) -> DeadlineError:
        """The error for a command that has used up its time."""
        return DeadlineError(
            f"no complete answer within --timeout-s {self._timeout_s:g}; allow more time, or ask for less"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A client of a server that lives, and the time of its calls: give each `timeouts=patience.timeouts()`."""

    client: RagClient
    patience: Patience


@contextmanager
def connected(url: str, *, timeout_s: float, tls: TlsOptions | None = None) -> Iterator[Connection]:
    """A connection. Raises UnavailableError that says how to start a server where none is live at `url`, DeniedError where one is
    but TLS stands between it and us, DeadlineError once `timeout_s` is over, BadRequestError for options that can't be.

    `url` may be several addresses with commas between them: one that is live is enough.
    """
    urls = [one.strip() for one in url.split(",")]
    for one in urls:
        _refuse_without_port(one)
    patience = Patience(timeout_s)
    with RagClient(urls, timeouts=patience.timeouts(), tls=tls) as client:
        if not client.health(timeouts=patience.timeouts()).live:
            for one in urls:
                refuse_for_tls(one, tls, timeout_s=min(_CONNECT_S, patience.left_s()))
            raise UnavailableError(
                f"no server answers at {url}; start one with `tritonrag serve`, or give --url HOST:PORT of its gRPC port"
            )
        try:
            yield Connection(client=client, patience=patience)
        except DeadlineError as error:
            if patience.left_s() > 0:  # the server's own word
                raise
            raise patience.spent() from error


def _refuse_without_port(url: str) -> None:
    port = url.rpartition(":")[2]
    if not (":" in url and port.isdecimal() and 0 < int(port) <= _LAST_PORT):
        raise BadRequestError(f"--url is {url!r}; give HOST:PORT of the server's gRPC port, such as 127.0.0.1:8001")


def parse_filter(text: str | None) -> Mapping[str, Any] | None:
    """The JSON object in --filter; raises BadRequestError where it is none."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequestError(f"--filter is {text!r}, which is not JSON ({error}); give an object") from error
    if not isinstance(value, dict):
        raise BadRequestError(f"--filter is {text!r}; give a JSON object")
    return value
