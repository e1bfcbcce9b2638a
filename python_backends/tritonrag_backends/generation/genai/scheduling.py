"""Who runs next in the worker: lanes that take batches, singles that run alone, and the queue before them.

A lane is one engine of the library. Most requests share lanes. A request whose random numbers must be its own (a seed) or whose
weights are (a LoRA adapter) can't share one and runs alone, where the lane says so. Everything is run in turn, in one thread.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tritonrag_backends.generation.genai.wire import End, Job, Step

Token = tuple[int, int]  # a job's id, a token's


class Lane(Protocol):
    """Runs several jobs together."""

    @property
    def free(self) -> int:
        """How many jobs could be started now."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a run would do something."""
        ...

    def takes(self, job: Job) -> bool:
        """Whether the job may share this lane; else it runs alone."""
        ...

    def start(self, job: Job) -> None:
        """Take it in; raises ValueError with the reason where the job itself is wrong."""
        ...

    def cancel(self, job_id: int) -> bool:
        """End it; its End comes with a later run. False where it is not here."""
        ...

    def run(self) -> Iterable[Token | End]:
        """One step of all that runs here."""
        ...


class Single(Protocol):
    """Runs one job by itself."""

    def run(self) -> Iterable[Token | End]:
        """One step; the last one has the End."""
        ...


class Scheduler:
    """The queue, first come, first served for each kind of place."""

    def __init__(self, lanes: Sequence[Lane], open_single: Callable[[Job], Single], max_singles: int) -> None:
        self._lanes, self._open_single, self._max_singles = lanes, open_single, max_singles
        self._waiting: deque[Job] = deque()
        self._waiting_alone: deque[Job] = deque()
        self._singles: dict[int, Single] = {}
        self._ends: list[End] = []  # of jobs that never ran

    @property
    def busy(self) -> bool:
        """Whether a step would do something."""
        queued = self._waiting or self._waiting_alone or self._ends or self._singles
        return bool(queued) or any(lane.busy for lane in self._lanes)

    def submit(self, job: Job) -> None:
        """Queue it."""
        together = self._lanes[0].takes(job)
        (self._waiting if together else self._waiting_alone).append(job)

    def cancel(self, job_id: int) -> None:
        """Take it out of the queue, or end it; one that is over already is nobody's concern."""
        for queue in (self._waiting, self._waiting_alone):
            for job in queue:
                if job.id == job_id:
                    queue.remove(job)
                    self._ends.append(End(job_id, "cancelled"))
                    return
        if self._singles.pop(job_id, None) is not None:
            self._ends.append(End(job_id, "cancelled"))
            return
        any(lane.cancel(job_id) for lane in self._lanes)

    def step(self) -> Step:
        """Fill free places, then run everything once."""
        started = [*self._fill_lanes(), *self._fill_singles()]
        tokens: dict[int, list[int]] = {}
        ends, self._ends = self._ends, []
        for event in self._run():
            if isinstance(event, End):
                ends.append(event)
            else:
                tokens.setdefault(event[0], []).append(event[1])
        for end in ends:
            self._singles.pop(end.id, None)
        return Step(started=started, tokens=list(tokens.items()), ends=ends)

    def _run(self) -> Iterable[Token | End]:
        for lane in self._lanes:
            if lane.busy:
                yield from lane.run()
        for single in list(self._singles.values()):
            yield from single.run()

    def _fill_lanes(self) -> Iterable[int]:
        for lane in self._lanes:
            for _ in range(lane.free):
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                try:
                    lane.start(job)
                except ValueError as error:
                    self._ends.append(_refused(job, error))
                else:
                    yield job.id

    def _fill_singles(self) -> Iterable[int]:
        while self._waiting_alone and len(self._singles) < self._max_singles:
            job = self._waiting_alone.popleft()
            try:
                self._singles[job.id] = self._open_single(job)
            except ValueError as error:
                self._ends.append(_refused(job, error))
            else:
                yield job.id


def _refused(job: Job, error: ValueError) -> End:
    return End(job.id, "error", "bad_request", f"the language model refuses the request: {error}")
