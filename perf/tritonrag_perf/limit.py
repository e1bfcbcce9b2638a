"""The in-process limit: as many single-threaded processes as cores embed and search with no server. What serving is held to."""

import multiprocessing
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self

from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError, InternalError
from tritonrag_perf.limit_worker import Done, Job, Work, serve_jobs

_START_S: Final = 120.0
_BEYOND_S: Final = 60.0  # for a batch that has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRate:
    """What the processes reached together; `p50_ms` is the median duration of a batch in one of them."""

    questions_per_s: float
    p50_ms: float
    cpu_ms_a_question: float

    @classmethod
    def of(cls, done: Sequence[Done]) -> Self:
        """Sum up what each process did."""
        questions = sum(one.questions for one in done)
        return cls(
            questions_per_s=sum(one.questions / one.seconds for one in done),
            p50_ms=statistics.median(duration for one in done for duration in one.batch_ms),
            cpu_ms_a_question=1e3 * sum(one.cpu_s for one in done) / questions,
        )


class LimitWorkers:
    """The processes; a context manager that ends them. Between two measurements they wait, and take no CPU time."""

    def __init__(self, settings: Settings, questions: Sequence[str], *, processes: int) -> None:
        if processes < 1 or not questions:
            raise BadRequestError(f"{processes} processes and {len(questions)} questions; give at least one of each")
        context = multiprocessing.get_context("spawn")
        variables = settings.to_environment()
        self._connections: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            first = number * len(questions) // processes
            process = context.Process(target=serve_jobs, args=(theirs, variables, tuple(questions), first), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        for connection in self._connections:
            self._receive(connection, _START_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(_BEYOND_S)
            process.kill()

    def measure(self, work: Work, *, batch: int, seconds: float, processes: int | None = None) -> LimitRate:
        """Let all of them, or the first few, work for so long."""
        connections = self._connections[:processes]
        for connection in connections:
            connection.send(Job(work=work, batch=batch, seconds=seconds))
        return LimitRate.of([self._receive(connection, seconds + _BEYOND_S) for connection in connections])

    @staticmethod
    def _receive(connection: Connection, timeout_s: float) -> Done:
        """The next message; raises InternalError where the process ended or says nothing."""
        try:
            if connection.poll(timeout_s):
                message: Done = connection.recv()
                return message
        except (EOFError, OSError):
            pass
        raise InternalError("a process of the in-process limit ended or hangs; what it said is above")
