"""One process of the in-process limit: the encoder and the index that the server has, in batches, with no server around them.

It is started anew (`spawn`), because the libraries read their numbers of threads when they are loaded.
"""

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Literal, get_args

from tritonrag_perf.worker_processes import ONE_THREAD

Work = Literal["embed", "search", "retrieve"]
WORKS: Final[tuple[Work, ...]] = get_args(Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do for `seconds`: questions are taken `batch` at a time."""

    work: Work
    batch: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of it. `batch_ms` are the durations of all batches, `cpu_s` the CPU time of all."""

    questions: int
    seconds: float
    cpu_s: float
    batch_ms: tuple[float, ...]


def serve_jobs(jobs: Connection, variables: Mapping[str, str], questions: Sequence[str], first: int) -> None:
    """Open what the settings in `variables` name, say so with True, then do jobs until the connection ends.

    `first` is the question to begin with, so that no two processes do the same ones at the same time.
    """
    os.environ.update(ONE_THREAD)
    rounds = {work: _Round(variables, questions, first, work) for work in WORKS}
    jobs.send(True)
    while True:
        try:
            job: Job = jobs.recv()
        except EOFError:
            return
        jobs.send(_do(job, rounds[job.work].take))


def _do(job: Job, take: Callable[[int], None]) -> Done:
    durations: list[float] = []
    cpu_s, began = _cpu_s(), time.perf_counter()
    ended = began
    while ended - began < job.seconds:
        take(job.batch)
        before, ended = ended, time.perf_counter()
        durations.append((ended - before) * 1e3)
    return Done(
        questions=job.batch * len(durations),
        seconds=ended - began,
        cpu_s=_cpu_s() - cpu_s,
        batch_ms=tuple(durations),
    )


class _Round:
    """Takes the questions in turn, over and over."""

    def __init__(self, variables: Mapping[str, str], questions: Sequence[str], first: int, work: Work) -> None:
        from tritonrag_perf.limit_stages import open_stages  # noqa: PLC0415 - after the threads are settled

        self._stages = open_stages(variables)
        self._questions, self._next, self._work = tuple(questions), first, work
        self._vectors = self._stages.embed(self._questions) if work == "search" else None
        self.take(1)  # what is done once is not measured

    def take(self, batch: int) -> None:
        """The next `batch` questions."""
        places = [(self._next + i) % len(self._questions) for i in range(batch)]
        self._next = (self._next + batch) % len(self._questions)
        texts = [self._questions[place] for place in places]
        vectors = self._stages.embed(texts) if self._vectors is None else self._vectors[places]
        if self._work != "embed":
            self._stages.search(texts, vectors)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
