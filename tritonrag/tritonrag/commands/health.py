"""`tritonrag health`: ask the supervisor of a running server how it is."""

import http.client
import json as json_module
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from tritonrag.terminal import bold, tell, write, write_json
from tritonrag_client.errors import BadRequestError, UnavailableError

NOT_READY, UNREACHABLE = 1, 2  # exit statuses
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 1 << 20


def run(*, url: str, json: bool) -> None:
    """Print the health; ends in status 0 where the server is ready, 1 where it is not, 2 where nobody answers."""
    try:
        health = read_health(url)
    except UnavailableError as error:
        tell(f"tritonrag: {error}")
        raise typer.Exit(UNREACHABLE) from None
    if json:
        write_json(health)
    else:
        _print(health)
    if not health.get("ready"):
        raise typer.Exit(NOT_READY)


def read_health(url: str, *, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """What /health at a supervisor's address says. Raises UnavailableError where none answers, BadRequestError for a wrong URL."""
    host, port = _address_of(url)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        health = json_module.loads(answer.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(
            f"no supervisor answers at {url} ({error or type(error).__name__}); start a server with `tritonrag serve`,"
            " or give --url http://HOST:PORT of its health port"
        ) from error
    finally:
        connection.close()
    if not isinstance(health, dict) or "ready" not in health:
        raise UnavailableError(f"what answers at {url} is no supervisor of ours; give --url http://HOST:PORT of one")
    return health


def _address_of(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme != "http":
        raise BadRequestError(
            f"--url is {url!r}; give http://HOST:PORT of the health port, such as http://127.0.0.1:8003"
        )
    return host, port


def _print(health: dict[str, Any]) -> None:
    state = "ready" if health["ready"] else "draining" if health.get("draining") else "not ready"
    write(f"{bold(state)} since {health.get('since')}; restarts of Triton: {health.get('restarts')}")
    for one in health.get("degraded", ()):
        write(f"  {one['stage']}: {one['reason']}")
    models = health.get("models", {})
    width = max(map(len, models), default=0)
    for model, model_state in models.items():
        write(f"  {model:<{width}}  {model_state}")
