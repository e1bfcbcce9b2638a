"""All of the supervision of one `tritonrag serve`: the health endpoint from the start, the supervisor once Triton is ready."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol, Self

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.log_follower import LogFollower
from tritonrag.ports import address_of, choose_ports
from tritonrag.supervising.endpoint import Endpoint
from tritonrag.supervising.events import Events
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.status import Status
from tritonrag.supervising.supervisor import Supervisor
from tritonrag.triton_command import ServeOptions, service_addresses
from tritonrag_client.errors import RagError


class Overseer(Protocol):
    """Who says when a server has come to its end: `ended` is a descriptor that becomes readable then."""

    ended: int

    def stop(self) -> None:
        """Look after it no more."""

    def failure(self) -> RagError:
        """Why it ended by itself."""


class HealthWatch:
    """A context manager: while it is open, health and metrics can be asked for."""

    def __init__(self, options: ServeOptions, *, port: int, as_json: bool, verbose: bool) -> None:
        address = address_of(options.host)
        services = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
        addresses = {**service_addresses(options, address), "health": address}
        choose_ports(
            addresses, {**services, "health": port}
        )  # refuses what can't be had together before anything starts
        self._settings, self._verbose = options.settings.supervisor, verbose
        self._leave_s, self._has_gpus = float(options.drain_timeout_s), options.machine().gpus > 0
        self._metrics = SupervisorMetrics()
        self._events = Events(as_json=as_json, count=self._metrics.event)
        self.status = Status(self._events, self._metrics)
        self._endpoint = Endpoint(address, port, report=lambda: self.status.report, metrics=self._metrics.exposition)
        self._log = _LogShown()

    def __enter__(self) -> Self:
        self._endpoint.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._endpoint.__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """Where health can be asked for."""
        return self._endpoint.port

    def over(self, server: TritonServer, running: RunningServer, *, start_s: float) -> AbstractContextManager[Overseer]:
        """Look after a server that is ready, and took `start_s` for it."""
        self._show_log(running)
        if not self._settings.enabled:
            self.status.unwatched()
            return _unwatched(server)
        return Supervisor(
            server,
            running,
            self._settings,
            start_s=start_s,
            leave_s=self._leave_s,
            has_gpus=self._has_gpus,
            status=self.status,
            events=self._events,
            metrics=self._metrics,
            on_restart=self._show_log,
        )

    def _show_log(self, running: RunningServer) -> None:
        if self._verbose:
            self._log.show(running)


class _LogShown:
    """The log of one Triton after the other on stderr."""

    def __init__(self) -> None:
        self._follower: LogFollower | None = None

    def show(self, running: RunningServer) -> None:
        self.close()
        self._follower = LogFollower(running.log_path, sys.stderr)
        self._follower.__enter__()

    def close(self) -> None:
        if self._follower is not None:
            self._follower.__exit__(None, None, None)
            self._follower = None


class _Unwatched:
    """A server that nobody looks after: it ends with its Triton."""

    def __init__(self, server: TritonServer, ended: int) -> None:
        self._server, self.ended = server, ended

    def stop(self) -> None:
        """Nothing was done."""

    def failure(self) -> RagError:
        """As Triton's log tells it."""
        return self._server.failure()


@contextmanager
def _unwatched(server: TritonServer) -> Iterator[Overseer]:
    pidfd = server.pidfd()
    try:
        yield _Unwatched(server, pidfd)
    finally:
        os.close(pidfd)
