"""Looking at one running Triton: whether it lives and answers, its processes, the canaries of its stages; mending its models."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self

from tritonrag.launcher import RunningServer
from tritonrag.processes import exit_status, has_exited, has_work, read_process, unlink_shared_memory
from tritonrag.supervising.asking import Asking, look_at_stubs
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.mending import Mender
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.report import end_of_process
from tritonrag.supervising.stubs import StubWatch
from tritonrag.supervising.tasks import Tasks
from tritonrag.supervising.triton_api import TritonApi

_STOPPED_S: Final = 1.0  # that Triton may be stopped by a signal
_SILENT_S: Final = 3.0  # that Triton may answer nothing while it does nothing
_SILENT_BUSY_S: Final = 15.0  # and while it seems to work
_GAP_S: Final = 0.5  # between two looks, which should be a tick apart


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonEnded:
    """Triton has ended, with its log telling more, or hangs."""

    event: Literal["triton_ended", "triton_hung"]
    reason: str


class Watching:
    """An async context manager for one Triton; what it sees goes to the judge."""

    def __init__(
        self,
        running: RunningServer,
        stages: Sequence[Stage],
        judge: Judge,
        limits: WatchLimits,
        metrics: SupervisorMetrics,
        *,
        has_gpus: bool = False,
    ) -> None:
        self._running, self._judge, self._limits = running, judge, limits
        self._api = TritonApi(running.http_url, running.admin_headers)
        self._stubs, self._tasks = StubWatch(running.pid), Tasks()
        self._asking = Asking(
            stages,
            judge,
            limits,
            api=self._api,
            stubs=self._stubs,
            tasks=self._tasks,
            metrics=metrics,
            triton_works=partial(has_work, running.pid),
        )
        self._mender = Mender(running, stages, judge, limits, api=self._api, stubs=self._stubs, has_gpus=has_gpus)
        self._looked_s = time.monotonic()
        self._stopped_since_s: float | None = None

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        self._tasks.start(self._asking.follow_counts())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        await self._api.__aexit__(kind, error, trace)

    def look(self) -> TritonEnded | None:
        """Look at everything once; what is seen of Triton's end."""
        now_s = time.monotonic()
        self._forgive_gap(now_s)
        if (ended := self._look_at_triton(now_s)) is not None:
            return ended
        look_at_stubs(self._stubs, self._judge, now_s)
        self._stubs.end_retired(now_s, patience_s=self._limits.mend_s + self._limits.leave_s)
        self._asking.look(now_s)
        self._tasks.raise_failed()
        return None

    def mend(self, model: str) -> None:
        """Begin to reload a model; the judge is told how it ended."""
        self._judge.mending(model)
        for stage in self._mender.stages_of(model):
            self._asking.forget(stage)
        self._tasks.start(self._mender.mend(model))

    def sweep(self) -> list[str]:
        """Remove the shared memory of stubs that are dead and replaced; the names of the regions."""
        regions = self._stubs.regions_to_sweep()
        return unlink_shared_memory(self._running.shm_prefix, regions) if regions else []

    def _forgive_gap(self, now_s: float) -> None:
        """Where we ourselves did not run for a while, nobody is to blame for what was not seen or answered meanwhile.

        Nor while a model is loaded: that may hold up canaries of others, and has an end of its own.
        """
        gap_s, self._looked_s = now_s - self._looked_s, now_s
        if gap_s > _GAP_S or self._judge.is_mending:
            self._asking.forgive(gap_s, now_s)

    def _look_at_triton(self, now_s: float) -> TritonEnded | None:
        reading = read_process(self._running.pid)
        if has_exited(self._running.pid):
            return TritonEnded(event="triton_ended", reason=end_of_process("Triton", exit_status(self._running.pid)))
        if reading is None or not reading.is_stopped:
            self._stopped_since_s = None
        elif self._stopped_since_s is None:
            self._stopped_since_s = now_s
        elif now_s - self._stopped_since_s > _STOPPED_S:
            return TritonEnded(event="triton_hung", reason="Triton is stopped by a signal")
        silent_s = now_s - self._asking.heard_s
        if silent_s > _SILENT_BUSY_S or (silent_s > _SILENT_S and not has_work(self._running.pid)):
            return TritonEnded(event="triton_hung", reason=f"Triton has answered nothing for {silent_s:.1f} s")
        return None
