"""The supervisor: looks at one Triton after the other, has it judged, and does what is decided. One thread of its own."""

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.supervising.events import TRITON, Events
from tritonrag.supervising.judge import GiveUp, Judge, Mend, Restart
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.stages import stages_of
from tritonrag.supervising.status import Status
from tritonrag.supervising.watching import TritonEnded, Watching
from tritonrag_backends.settings import SupervisorSettings
from tritonrag_client.errors import InternalError, RagError

_TICK_S: Final = 0.1


class Supervisor:
    """A context manager around the life of a server that is ready; `ended` becomes readable when nothing more is done.

    `start_s` is what Triton took to start (see WatchLimits). `leave_s` is what requests get that run in a model's
    healthy processes when it is reloaded; with GPUs (`has_gpus`) those are ended first. `on_restart` is told of each new Triton.
    The thread that starts a Triton anew must outlive it (see TritonServer), so leave the context after the server was stopped.
    """

    def __init__(
        self,
        server: TritonServer,
        running: RunningServer,
        settings: SupervisorSettings,
        *,
        start_s: float,
        leave_s: float,
        has_gpus: bool,
        status: Status,
        events: Events,
        metrics: SupervisorMetrics,
        on_restart: Callable[[RunningServer], None] = lambda _: None,
    ) -> None:
        self._server, self._running, self._settings = server, running, settings
        self._status, self._events, self._metrics, self._on_restart = status, events, metrics, on_restart
        stages = stages_of(running.models_dir, running.models)
        self._judge = Judge(stages, most_failed_starts=settings.failed_starts)
        self._limits = WatchLimits.of(settings, start_s=start_s, leave_s=leave_s)
        self._stages, self._has_gpus = stages, has_gpus
        self._stopping, self._released = threading.Event(), threading.Event()
        self._failure: RagError | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self.ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._released.set()
        self._thread.join()
        os.close(self.ended)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Do nothing more; returns when that is so. TritonServer's `interrupted` ends a start of Triton that is under way."""
        self._stopping.set()
        select.select([self.ended], [], [])  # goes on after a signal, where reading it would fail

    def failure(self) -> RagError:
        """Why it ended by itself."""
        return self._failure or InternalError("the supervisor ended without a reason")

    def _run(self) -> None:
        try:
            asyncio.run(self._supervise())
        except Exception as error:  # noqa: BLE001 - the loop's edge: without a supervisor the server must not go on
            self._failure = InternalError(f"the supervisor failed: {error!r}")
        os.eventfd_write(self.ended, 1)
        self._released.wait()  # Triton ends with the thread that started it

    async def _supervise(self) -> None:
        while not self._stopping.is_set():
            if not self._judge.wants_restart:
                await self._watch()
            action = self._judge.decide(time.monotonic())
            self._publish()
            if isinstance(action, GiveUp):
                self._failure = InternalError(action.reason)
                self._events.tell("gave_up", TRITON, action.reason)
                return
            if isinstance(action, Restart) and not self._restart(action):
                return
            await asyncio.sleep(_TICK_S)

    async def _watch(self) -> None:
        """Look at the Triton that runs, and have its models mended, until it has to be restarted."""
        watching = Watching(
            self._running, self._stages, self._judge, self._limits, self._metrics, has_gpus=self._has_gpus
        )
        async with watching:
            while not (self._stopping.is_set() or self._judge.wants_restart):
                if (ended := watching.look()) is not None:
                    self._end(ended)
                elif isinstance(action := self._judge.decide(time.monotonic()), Mend):
                    watching.mend(action.model)
                self._sweep(watching)
                self._publish()
                await asyncio.sleep(_TICK_S)

    def _end(self, ended: TritonEnded) -> None:
        """What is left of a Triton that has ended or hangs: its stubs would outlive it."""
        detail = ""
        if ended.event == "triton_ended":
            with suppress(OSError):  # a log that can't be read
                detail = str(self._server.failure())
        self._judge.triton_down(ended.event, ended.reason, detail)
        self._publish()
        self._server.kill()

    def _restart(self, action: Restart) -> bool:
        """Blocks while Triton starts: there is nothing to be seen meanwhile. False where we were told to stop."""
        self._events.tell("triton_restarting", TRITON, action.reason)
        try:
            self._running = self._server.restart()
        except KeyboardInterrupt:  # TritonServer's `interrupted`
            return False
        except (RagError, OSError) as error:  # no memory for a process, no room for its folder
            self._judge.start_failed("Triton does not start", time.monotonic(), detail=str(error))
        else:
            self._judge.started(time.monotonic())
            self._metrics.restarted()
            self._on_restart(self._running)
        self._publish()
        return True

    def _sweep(self, watching: Watching) -> None:
        if swept := watching.sweep():
            self._events.tell("swept", TRITON, "removed the shared memory of dead processes", regions=swept)

    def _publish(self) -> None:
        for one in self._judge.happenings():
            self._events.tell(one.event, one.model, one.reason, **one.more)
            if one.event == "mended":
                self._metrics.repaired(one.model)
        self._status.judged(self._judge)
