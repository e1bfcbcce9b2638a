"""The in-process limit: as many single-threaded processes as cores embed and search with no server. What serving is held to."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tritonrag_backends.settings import Settings
from tritonrag_client.errors import BadRequestError
from tritonrag_perf.limit_worker import Done, Job, Work, serve_jobs
from tritonrag_perf.worker_processes import WorkerProcesses

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


class LimitWorkers(WorkerProcesses):
    """The processes of the limit."""

    def __init__(self, settings: Settings, questions: Sequence[str], *, processes: int) -> None:
        if processes < 1 or not questions:
            raise BadRequestError(f"{processes} processes and {len(questions)} questions; give at least one of each")
        variables, questions = settings.to_environment(), tuple(questions)
        firsts = [number * len(questions) // processes for number in range(processes)]
        super().__init__("in-process limit", serve_jobs, [(variables, questions, first) for first in firsts])

    def measure(self, work: Work, *, batch: int, seconds: float, processes: int | None = None) -> LimitRate:
        """Let all of them, or the first few, work for so long."""
        connections = self.connections[:processes]
        for connection in connections:
            connection.send(Job(work=work, batch=batch, seconds=seconds))
        return LimitRate.of([self.receive(connection, seconds + _BEYOND_S) for connection in connections])
