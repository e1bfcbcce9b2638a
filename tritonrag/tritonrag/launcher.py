"""Start one Triton, wait until it is ready, and take it down again so that nothing of it is left."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tritonrag import die_with_parent
from tritonrag.admin_key import AdminKey, has_taken_its_arguments
from tritonrag.ports import address_of, choose_ports, is_free, reachable, require_ipv4
from tritonrag.processes import exit_status, has_exited, kill_session, session_members, shared_memory
from tritonrag.repository import prepare
from tritonrag.triton_command import (
    ServeOptions,
    find_model_repository,
    loaded_models,
    require_access,
    require_profile,
    service_addresses,
    triton_arguments,
    triton_environment,
)
from tritonrag.triton_home import TritonHome
from tritonrag.triton_log import failure, port_was_taken, read_log
from tritonrag.triton_parts import find_triton
from tritonrag_client.errors import BadRequestError, RagError, UnavailableError

_POLL_S = 0.05
_ATTEMPTS = 3  # for free ports that somebody else took between our choice and Triton's bind
_KILL_TIMEOUT_S = 10.0
_BEYOND_DRAIN_S = 15.0  # what Triton may need after its drain timeout to unload its models


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A Triton that is ready. `host` is the address under which this machine reaches its gRPC, `plain_host` HTTP and metrics,
    which know no TLS. `admin_headers` open the APIs that are restricted, over HTTP as headers and over gRPC as metadata.
    `models` are those that were loaded by name, from the repository at `models_dir`.
    """

    host: str
    plain_host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    pid: int
    log_path: Path
    shm_prefix: str
    models: tuple[str, ...] = ()
    models_dir: Path = Path()
    admin_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def grpc_url(self) -> str:
        """What a RagClient takes."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        """Where Triton's own HTTP endpoints are."""
        return f"http://{self.plain_host}:{self.http_port}"

    def taken_ports(self) -> list[int]:
        """Those of its ports that somebody listens on."""
        ports = ((self.host, self.grpc_port), (self.plain_host, self.http_port), (self.plain_host, self.metrics_port))
        return [port for host, port in ports if not is_free(host, port)]


class TritonServer:
    """One Triton. A context manager that stops it on the way out; `stop` and `kill` may be called at any time and repeatedly.

    Start it from a thread that outlives it: the kernel tells Triton to stop when the thread that started it ends.
    `interrupted` is asked while Triton starts; once it says yes, `start` gives up with KeyboardInterrupt.
    """

    def __init__(self, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._interrupted = interrupted
        self._process: subprocess.Popen[bytes] | None = None
        self._home: TritonHome | None = None
        self._stop_timeout_s = 0.0
        self._running: RunningServer | None = None
        self._session: int | None = None
        self._options: ServeOptions | None = None
        self._kept_log: Path | None = None
        self._was_ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, options: ServeOptions) -> RunningServer:
        """Start Triton and return once every model is ready.

        Raises BadRequestError for a port that is taken or a setting, profile, log or TLS file that can't be, NotFoundError for a
        missing Triton, repository or file of the embedder's, the models' own error where one does not load, InternalError with
        the log's path where Triton ends or is not ready in `ready_timeout_s`.
        """
        require_ipv4(options.host)
        require_profile(find_model_repository(options.model_repository), options.profile)
        require_access(options)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._started(self._start_once(options), options)
            except _PortLostError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError  # the loop returns or raises

    def restart(self) -> RunningServer:
        """Start anew what was started before, on the same ports; what is left of it is ended first.

        A log file that was given is put aside as FILE.1. Raises what `start` raises.
        """
        if self._options is None:
            raise UnavailableError("nothing was started that could be started again")
        self.kill()
        if self._options.log_file is not None:
            with suppress(OSError):  # without it the old log is overwritten, and the server runs
                self._options.log_file.replace(f"{self._options.log_file}.1")
        return self.start(self._options)

    @property
    def is_started(self) -> bool:
        """Whether there is a Triton, be it one that has ended and was not taken down yet."""
        return self._process is not None

    def stop(self, timeout_s: float | None = None, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Let Triton finish what it has begun (SIGTERM), then end what is left (SIGKILL) and remove every trace.

        `timeout_s` None: the drain timeout it was started with, and some time to unload. Once `hurry` says yes, it is killed.
        """
        process = self._process
        if process is None:
            self.kill()  # a start that failed half-way may have left a folder
            return
        deadline = time.monotonic() + (self._stop_timeout_s if timeout_s is None else timeout_s)
        try:
            if not has_exited(process.pid):
                os.kill(process.pid, signal.SIGTERM)  # Popen's own would read its exit status, and free its process id
            while not has_exited(process.pid) and time.monotonic() < deadline and not hurry():
                time.sleep(_POLL_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End Triton and its stubs at once and remove every trace; nothing happens where nothing runs."""
        process, home = self._process, self._home
        if process is not None:
            # While Triton's exit status is unread its process id, which is the session's, can't be another's.
            kill_session(process.pid)
            with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver can't be ended by anybody
                process.wait(_KILL_TIMEOUT_S)
            self._process = None
        if home is not None:
            home.remove()
            self._home = None

    def pidfd(self) -> int:
        """A file descriptor that becomes readable when Triton ends; the caller closes it."""
        if self._process is None:
            raise UnavailableError("Triton is not running")
        return os.pidfd_open(self._process.pid)

    def check_left_behind(self) -> list[str]:
        """What is left of the server that was started last: its processes, shared memory, folder, ports. Empty when all is well."""
        left = (
            [] if self._session is None else [f"process {p.pid}: {p.command}" for p in session_members(self._session)]
        )
        running = self._running
        if running is None:
            return left
        left += [f"shared memory {region}" for region in shared_memory(running.shm_prefix)]
        home = Path(tempfile.gettempdir()) / running.shm_prefix
        left += [f"folder {home}"] if home.exists() else []
        return left + [f"port {port}" for port in running.taken_ports()]

    def failure(self) -> RagError:
        """Why Triton ended or does not get ready, from its log, which is kept where it outlives the server's folder."""
        if self._running is None or self._process is None:
            return UnavailableError("Triton was not started")
        log_path = self._running.log_path
        error_log, status = read_log(log_path), exit_status(self._process.pid)
        if self._home is not None and log_path.is_relative_to(self._home.path):
            with suppress(OSError):  # a full disk must not hide what the log says
                log_path = self._keep(log_path, self._home)
        return failure(error_log, log_path=log_path, exit_status=status, was_ready=self._was_ready)

    def _keep(self, log_path: Path, home: TritonHome) -> Path:
        """Copy the log to where it stays, in place of the last one that was kept: a night of failures must not fill the disk."""
        kept = kept_log(home)
        shutil.copy(log_path, kept)
        if self._kept_log not in {None, kept}:
            self._kept_log.unlink(missing_ok=True)
        self._kept_log = kept
        return kept

    def _started(self, running: RunningServer, options: ServeOptions) -> RunningServer:
        """Remember how to start it again: ports that were chosen stay."""
        self._was_ready = True
        self._options = replace(
            options, http_port=running.http_port, grpc_port=running.grpc_port, metrics_port=running.metrics_port
        )
        return running

    def _start_once(self, options: ServeOptions) -> RunningServer:
        self.kill()
        self._was_ready = False
        address = address_of(options.host)
        addresses = service_addresses(options, address)
        wanted = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
        ports = choose_ports(addresses, wanted)
        triton = find_triton(options.triton_dir)
        self._stop_timeout_s = options.drain_timeout_s + _BEYOND_DRAIN_S
        admin_key = AdminKey()
        try:
            self._home = TritonHome(triton)
            log_path = (options.log_file or self._home.path / "triton.log").absolute()
            arguments = triton_arguments(options, triton, self._home, address=address, ports=ports, admin_key=admin_key)
            prepare(options, triton, self._home)
            environment = triton_environment(options, triton, self._home)
            process = _spawn(arguments, environment, log_path, self._home.lock_fd)
            self._process, self._session = process, process.pid
            self._running = RunningServer(
                host=reachable(address),
                plain_host=reachable(addresses["http"]),
                http_port=ports["http"],
                grpc_port=ports["grpc"],
                metrics_port=ports["metrics"],
                pid=process.pid,
                log_path=log_path,
                shm_prefix=self._home.shm_prefix,
                models=loaded_models(options.models),
                models_dir=self._home.models,
                admin_headers=admin_key.headers,
            )
            self._wait_until_ready(self._running, options, admin_key, retry=0 in wanted.values())
        except BaseException:
            self.kill()
            raise
        return self._running

    def _wait_until_ready(
        self, running: RunningServer, options: ServeOptions, admin_key: AdminKey, *, retry: bool
    ) -> None:
        deadline, tried_to_hide = time.monotonic() + options.ready_timeout_s, False
        while not _is_ready(running):
            if not tried_to_hide and has_taken_its_arguments(running.log_path):
                admin_key.hide(running.pid)
                tried_to_hide = True
            if self._interrupted():
                raise KeyboardInterrupt
            ended = has_exited(running.pid)
            if ended and retry and _lost_a_port(running, options):
                raise _PortLostError("a free port was taken by another process before Triton could have it; try again")
            if ended or time.monotonic() > deadline:
                raise self.failure()
            time.sleep(_POLL_S)
        if not tried_to_hide:
            admin_key.hide(running.pid)


def kept_log(home: TritonHome) -> Path:
    """Where the log of a server that failed stays."""
    return Path(tempfile.gettempdir()) / f"{home.path.name.replace('-home-', '-failed-')}.log"


class _PortLostError(UnavailableError):
    """Somebody took a free port before Triton had it."""


def _lost_a_port(running: RunningServer, options: ServeOptions) -> bool:
    """Whether Triton ended because somebody has one of its ports: over TLS its word alone does not tell."""
    return port_was_taken(read_log(running.log_path)) and (options.tls is None or bool(running.taken_ports()))


def _spawn(arguments: list[str], environment: dict[str, str], log_path: Path, lock_fd: int) -> subprocess.Popen[bytes]:
    """Start Triton as the leader of its own session: a Ctrl-C at the terminal reaches us alone, and its stubs can be found."""
    guard = [sys.executable, "-I", "-S", str(Path(die_with_parent.__file__)), str(os.getpid())]
    with _open_log(log_path) as log:
        return subprocess.Popen(
            [*guard, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock_fd,),
        )


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise BadRequestError(
            f"Triton's log can't be written to {path} ({error.strerror}); give --log-file a place where you may write"
        ) from error


def _is_ready(running: RunningServer) -> bool:
    """Whether Triton says that every model is ready, and its metrics, which start last, can be reached."""
    connection = http.client.HTTPConnection(running.plain_host, running.http_port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        if connection.getresponse().status != http.HTTPStatus.OK:
            return False
        with socket.create_connection((running.plain_host, running.metrics_port), timeout=5):
            return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
