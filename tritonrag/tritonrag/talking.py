"""What `ask` and `search` share: a client for the given server, and a clear word where none answers."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tritonrag.tls_probe import refuse_for_tls
from tritonrag_client import RagClient, Timeouts, TlsOptions
from tritonrag_client.errors import BadRequestError, UnavailableError

_CONNECT_S = 3.0
_LAST_PORT = 65535


@contextmanager
def connected(url: str, *, timeout_s: float, tls: TlsOptions | None = None) -> Iterator[RagClient]:
    """A client. Raises UnavailableError that says how to start a server where none is live at `url`, DeniedError where one is but
    TLS stands between it and us, BadRequestError for options that can't be.

    `url` may be several addresses with commas between them: one that is live is enough.
    """
    urls = [one.strip() for one in url.split(",")]
    for one in urls:
        _refuse_without_port(one)
    if not 0 < timeout_s < math.inf:
        raise BadRequestError(f"--timeout-s is {timeout_s:g}; give a number of seconds above 0")
    timeouts = Timeouts(connect_s=min(_CONNECT_S, timeout_s), total_s=timeout_s)
    with RagClient(urls, timeouts=timeouts, tls=tls) as client:
        if not client.health().live:
            for one in urls:
                refuse_for_tls(one, tls, timeout_s=timeouts.connect_s)
            raise UnavailableError(
                f"no server answers at {url}; start one with `tritonrag serve`, or give --url HOST:PORT of its gRPC port"
            )
        yield client


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
