"""Processes that are started once, then work on demand: for what is measured with no server around it."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

from tritonrag_client.errors import InternalError

# One thread a process, as many processes as cores: 1.47 times one process with two threads. For the process to set before it
# loads the libraries, which read it then.
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_START_S: Final = 120.0
_END_S: Final = 10.0


class WorkerProcesses:
    """Each calls `target` with its end of a connection and with arguments of its own, says one thing when it is ready, and ends
    with the connection. A context manager that ends them. Between two measurements they wait, and take no CPU time.

    Raises InternalError where one does not start; what it said is on stderr.
    """

    def __init__(self, what: str, target: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> None:
        """`what` they are of, for the message."""
        self._what = what
        context = multiprocessing.get_context("spawn")
        self.connections: list[Connection] = []
        self._processes = []
        for own in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=target, args=(theirs, *own), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self._processes.append(process)
        for connection in self.connections:
            self.receive(connection, _START_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self.connections:
            connection.close()
        for process in self._processes:
            process.join(_END_S)
            process.kill()

    def receive(self, connection: Connection, timeout_s: float) -> Any:  # noqa: ANN401 - what the other end sends
        """The next message; raises InternalError where the process ended or says nothing for so long."""
        try:
            if connection.poll(timeout_s):
                return connection.recv()
        except (EOFError, OSError):
            pass
        raise InternalError(f"a process of the {self._what} ended or hangs; what it said is above")
