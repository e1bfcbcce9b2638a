"""The supervisor's HTTP port: /health, /health/live, /health/ready for orchestrators, /metrics for Prometheus.

Small and bounded: GET alone, a few connections at a time, each of which has a few seconds and is closed after its answer.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self

from tritonrag.ports import choose_ports
from tritonrag.supervising.metrics import CONTENT_TYPE
from tritonrag.supervising.report import HealthReport

_CONNECTIONS: Final = 16
_TIMEOUT_S: Final = 5.0
_JSON: Final = "application/json"


class Endpoint:
    """A context manager; listens from the moment that it is made. `report` and `metrics` are asked for each request.

    Raises BadRequestError that names the option and the port where that can't be had; 0 is a free one.
    """

    def __init__(
        self, address: str, port: int, *, report: Callable[[], HealthReport], metrics: Callable[[], bytes]
    ) -> None:
        chosen = choose_ports(address, {"health": port})["health"]
        self._server = _Server((address, chosen), report, metrics)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.server_address[1]
        return port


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False  # a reader that stalls does not hold up the end
    request_queue_size = 32

    def __init__(
        self, address: tuple[str, int], report: Callable[[], HealthReport], metrics: Callable[[], bytes]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.report, self.metrics = report, metrics
        self._open: dict[socket.socket, float] = {}  # since when
        self._changing = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the reverse look-up of the address that HTTPServer makes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Answer in a thread, or hang up where too many are being answered."""
        if len(self._open) >= _CONNECTIONS:
            self.shutdown_request(request)
            return
        with self._changing:
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """However it went, its place is free again."""
        with self._changing:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Hang up on those whose time is over, twice a second: who says a letter now and then never lets a read time out."""
        began_s = time.monotonic() - _TIMEOUT_S
        with self._changing:  # while one is in there it is not closed, and its descriptor is not another's
            for request in (request for request, since_s in self._open.items() if since_s < began_s):
                with suppress(OSError):  # the client was faster
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that hangs up in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S
    server_version, sys_version = "tritonrag", ""

    def do_GET(self) -> None:
        """Answer one of the paths."""
        report = self.server.report()
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/health":
            self._answer(HTTPStatus.OK, _JSON, json.dumps(report.to_dict(), ensure_ascii=False).encode())
        elif path == "/health/live":
            self._say("live", is_so=report.live)
        elif path == "/health/ready":
            self._say("ready", is_so=report.ready)
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.metrics())
        else:
            self._answer(HTTPStatus.NOT_FOUND, _JSON, b'{"error":"use /health, /health/live, /health/ready, /metrics"}')

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - http.server's names
        """Nothing: orchestrators ask every few seconds."""

    def _say(self, what: str, *, is_so: bool) -> None:
        status = HTTPStatus.OK if is_so else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, _JSON, json.dumps({what: is_so}).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
