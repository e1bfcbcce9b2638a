"""The worker as the event loop sees it: jobs in, tokens out; started again when it dies. Lives in one event loop."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

from tritonrag_backends.generation.genai.process import STARTER, WorkerProcess
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.genai.wire import Cancel, End, Frames, Job, Step, WireError, WireMessage, to_frame
from tritonrag_client.errors import RagError, UnavailableError

_LOG = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 16
_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0  # a worker that ran for so long is started again at once


class Generation:
    """One job that the worker has: what it wrote and nobody has read yet."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.started = False
        self._tokens: deque[int] = deque()
        self._end: End | None = None
        self._changed = asyncio.Event()

    def add(self, tokens: list[int]) -> None:
        """The worker wrote these."""
        self._tokens.extend(tokens)
        self._changed.set()

    def finish(self, end: End) -> None:
        """Nothing more comes."""
        self._end = end
        self._changed.set()

    async def news(self) -> tuple[list[int], End | None]:
        """The tokens since the last time, at least one unless it is over, and the end with the last of them."""
        await self._changed.wait()
        tokens = list(self._tokens)
        self._tokens.clear()
        self._changed.clear()
        return tokens, self._end


class Supervisor:
    """Holds one worker, and what it was given to do."""

    def __init__(self, settings: GenaiSettings, worker: WorkerProcess, environment: Mapping[str, str]) -> None:
        """`worker` has its model loaded; it is talked to from the first job on, in the loop of that job.

        `environment` is what it was started with, and will be again.
        """
        self._settings, self._environment = settings, environment
        self._worker: WorkerProcess | None = worker
        self._generations: dict[int, Generation] = {}
        self._link: asyncio.Future[asyncio.StreamWriter] | None = None  # None: there is no worker now
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.restarts = 0

    def __len__(self) -> int:
        """Jobs that the worker has not ended."""
        return len(self._generations)

    @property
    def waiting(self) -> int:
        """Those of them that it has not begun."""
        return sum(not generation.started for generation in self._generations.values())

    async def submit(self, job: Job) -> Generation:
        """Give the worker a job; `leave` must follow. Raises UnavailableError where there is no worker."""
        if self._closed:
            raise UnavailableError("the server is shutting down")
        if self._task is None:
            self._link = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._supervise())
        if self._link is None:
            raise UnavailableError("the language model is being started again; try again later")
        generation = self._generations[job.id] = Generation(job.id)  # counts, and can be lost, from here on
        try:
            writer = await asyncio.shield(self._link)
        except BaseException:
            self._generations.pop(job.id, None)
            raise
        writer.write(to_frame(job))
        return generation

    def leave(self, generation: Generation) -> None:
        """Nobody reads it any more: have the worker end it, where it has not."""
        if generation.job_id in self._generations and self._link is not None and self._link.done():
            self._link.result().write(to_frame(Cancel(id=generation.job_id)))

    async def close(self) -> None:
        """End the worker; jobs end with UnavailableError."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._stop_worker()
        self._lose("the server is shutting down")

    async def _supervise(self) -> None:
        """Talk to the worker until it dies, start it again, and so on."""
        failures = 0
        while True:
            began_s = asyncio.get_running_loop().time()
            if self._worker is not None:
                await self._talk(self._worker)
            await self._stop_worker()
            self._lose("the language model's process has ended; it is being started again, try again later")
            if asyncio.get_running_loop().time() - began_s > _STEADY_S:
                failures = 0
            started = False
            while not started:
                await asyncio.sleep(_pause_s(failures))
                failures += 1
                started = await self._start_again()

    async def _talk(self, worker: WorkerProcess) -> None:
        """Hand out what the worker says, to its end."""
        frames, writer = Frames(), None
        try:
            reader, writer = await asyncio.open_connection(sock=worker.connection)
            if self._link is None:
                self._link = asyncio.get_running_loop().create_future()
            self._link.set_result(writer)
            while data := await reader.read(_READ_BYTES):
                for message in frames.feed(data):
                    self._hear(message)
            _LOG.error("the language model's process %d ended", worker.process.pid)
        except (OSError, WireError) as error:
            _LOG.error("the language model's process %d can't be talked to: %s", worker.process.pid, error)
        finally:
            if writer is not None:
                writer.close()

    def _hear(self, message: WireMessage) -> None:
        if not isinstance(message, Step):
            raise WireError(f"a {type(message).__name__} where a Step was expected")
        for job_id in message.started:
            if (generation := self._generations.get(job_id)) is not None:
                generation.started = True
        for job_id, tokens in message.tokens:
            if (generation := self._generations.get(job_id)) is not None:
                generation.add(tokens)
        for end in message.ends:
            if (generation := self._generations.pop(end.id, None)) is not None:
                generation.finish(end)

    def _lose(self, why: str) -> None:
        """There is no worker now: end everything that it had."""
        link, self._link = self._link, None
        if link is not None and not link.done():
            link.set_exception(UnavailableError(why))
            link.exception()  # whoever waits for it gets it; where nobody does, it is no news
        generations, self._generations = self._generations, {}
        for generation in generations.values():
            generation.finish(End(generation.job_id, "error", UnavailableError.code, why))

    async def _start_again(self) -> bool:
        loop = asyncio.get_running_loop()
        self.restarts += 1
        try:
            worker = await loop.run_in_executor(STARTER, self._start)
            await loop.run_in_executor(STARTER, worker.wait_ready, self._settings.start_timeout_s)
        except RagError as error:
            _LOG.error("the language model's process can't be started again: %s", error)
            await self._stop_worker()
            return False
        _LOG.warning("the language model's process was started again, for the %d. time", self.restarts)
        return True

    def _start(self) -> WorkerProcess:
        """In STARTER. Whichever of this and `close` comes second ends the worker."""
        worker = WorkerProcess.start(self._settings, self._environment)
        self._worker = worker
        if self._closed:
            worker.stop()
        return worker

    async def _stop_worker(self) -> None:
        """Not in the loop's own time: the kernel may need a while to take a large model's memory back."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.get_running_loop().run_in_executor(None, worker.stop)


def _pause_s(failures: int) -> float:
    """Before the worker is started again: 0, 1, 2, 4 ... seconds."""
    return min(2.0 ** (failures - 1), _LONGEST_PAUSE_S) if failures else 0.0
