"""Starting the worker process and waiting until its model is loaded."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.genai.wire import Failed, Frames, Ready, Setup, WireError, WireMessage, to_frame
from tritonrag_client.errors import ERROR_TYPES, InternalError, UnavailableError

WORKER_MODULE: Final = "tritonrag_backends.generation.genai.worker"
_READ_BYTES: Final = 1 << 16

# The kernel kills a child when the *thread* that started it ends (PR_SET_PDEATHSIG), so children are started by one that stays.
STARTER: Final = ThreadPoolExecutor(1, thread_name_prefix="genai-starter")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A worker that runs, and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    @classmethod
    def start(cls, settings: GenaiSettings, environment: Mapping[str, str]) -> "WorkerProcess":
        """Start it, with `environment` beside ours, and send the Setup; call in STARTER.

        Raises UnavailableError where no Python can be found or started.
        """
        ours, theirs = socket.socketpair()
        command = [str(find_python()), "-P", "-m", WORKER_MODULE, str(theirs.fileno()), str(os.getpid())]
        try:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            )
        except OSError as error:
            ours.close()
            raise UnavailableError(f"the language model's process can't be started: {error}") from error
        finally:
            theirs.close()
        worker = cls(process=process, connection=ours)
        try:
            ours.sendall(to_frame(_setup(settings)))
        except OSError as error:  # it has died already
            worker.stop()
            raise judge_failure(str(error)) from error
        return worker

    def wait_ready(self, timeout_s: float) -> Ready:
        """Block until the model is loaded. Raises what `judge` raises, UnavailableError after `timeout_s`."""
        frames = Frames()
        self.connection.settimeout(timeout_s)
        try:
            while True:
                data = self.connection.recv(_READ_BYTES)
                messages = frames.feed(data)
                if messages or not data:
                    return judge(messages[0] if messages else None)
        except TimeoutError:
            raise too_slow(timeout_s) from None
        except (OSError, WireError) as error:
            raise judge_failure(str(error)) from error

    def stop(self) -> None:
        """Kill it and wait for its end; frees the socket. Again is no harm."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


def judge(message: WireMessage | None) -> Ready:
    """The first message, None where the worker ended without one. Raises the worker's error, or UnavailableError."""
    match message:
        case Ready():
            return message
        case Failed():
            raise ERROR_TYPES.get(message.code, InternalError)(message.message)
        case _:
            raise judge_failure("it ended before the model was loaded")


def judge_failure(reason: str) -> UnavailableError:
    """For a worker that broke off while loading."""
    return UnavailableError(f"the language model's process failed at its start: {reason}; the server's log says more")


def too_slow(timeout_s: float) -> UnavailableError:
    """For a worker that takes too long."""
    return UnavailableError(
        f"the language model was not loaded within {timeout_s:g} s; give it more with TRITONRAG_GENAI_START_TIMEOUT_S"
    )


def find_python() -> Path:
    """The interpreter that runs this environment; inside a Triton stub `sys.executable` may be empty or the stub itself."""
    for candidate in _pythons():
        if candidate.name.startswith("python") and os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    raise UnavailableError(f"no Python is found to run the language model's process, not even in {sys.prefix}/bin")


def _pythons() -> Iterator[Path]:
    if sys.executable:
        yield Path(sys.executable)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        yield from (Path(prefix, "bin", name) for name in (version, "python3", "python"))


def _setup(settings: GenaiSettings) -> Setup:
    return Setup(
        model=str(settings.model.absolute()),
        execution=settings.execution,
        threads=settings.threads,
        batch=settings.batch,
        lanes=settings.lanes,
    )
