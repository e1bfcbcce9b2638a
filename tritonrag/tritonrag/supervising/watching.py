"""Looking at one running Triton: its processes every tick, a canary of each stage now and then; and reloading a model of it."""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Literal, Self

from tritonrag.launcher import RunningServer
from tritonrag.processes import has_exited, has_work, read_process, unlink_shared_memory
from tritonrag.supervising.canaries import canaries_of, verdict_of
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.reloading import can_serve_meanwhile, reload
from tritonrag.supervising.stubs import Sight, StubWatch
from tritonrag.supervising.triton_api import TritonApi
from tritonrag_client.errors import RagError, UnavailableError

_STOPPED_S: Final = 1.0  # that Triton may be stopped by a signal
_SILENT_S: Final = 3.0  # that Triton may answer nothing while it does nothing
_SILENT_BUSY_S: Final = 15.0  # and while it seems to work
_GAP_S: Final = 0.5  # between two looks, which should be a tick apart
_PATIENCE: Final = 5  # times as long may a canary be late while Triton has work
_POLL_S: Final = 0.05
_HASTE: Final = 3  # counts are read so many times as often while a canary is late


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Seconds between two canaries of a stage, until one is late, that reloading a model may take, and that healthy processes of
    the old one then get for what they have begun.
    """

    interval_s: float
    late_s: float
    mend_s: float
    leave_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonEnded:
    """Triton has ended, with its log telling why (`reason` ""), or hangs."""

    event: Literal["triton_ended", "triton_hung"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A canary under way; `successes` are those of its stage before it was sent."""

    sent_s: float
    successes: int
    task: "asyncio.Task[None]"


class Watching:
    """An async context manager for one Triton; what it sees goes to the judge."""

    def __init__(
        self,
        running: RunningServer,
        stages: Iterable[Stage],
        judge: Judge,
        limits: WatchLimits,
        metrics: SupervisorMetrics,
        *,
        has_gpus: bool = False,
    ) -> None:
        self._running, self._judge, self._limits, self._metrics = running, judge, limits, metrics
        self._stages = {stage.name: stage for stage in stages}
        self._canaries = canaries_of(self._stages)
        self._api = TritonApi(running.http_url, running.admin_headers)
        self._stubs = StubWatch(running.pid)
        self._has_gpus = has_gpus
        self._hung_pids: dict[str, set[int]] = {}
        self._asked: dict[str, _Asked] = {}
        self._due_s: dict[str, float] = {}
        self._successes: dict[str, int] = {}
        self._counted_s = self._heard_s = self._looked_s = time.monotonic()
        self._stopped_since_s: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        self._start(self._count())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.__aexit__(kind, error, trace)

    def look(self) -> TritonEnded | None:
        """Look at everything once; what is seen of Triton's end."""
        now_s = time.monotonic()
        self._forgive_gap(now_s)
        if (ended := self._look_at_triton(now_s)) is not None:
            return ended
        for sight in self._stubs.look(now_s):
            self._judge_stub(sight)
        self._stubs.end_retired(now_s, patience_s=self._limits.mend_s + self._limits.leave_s)
        for stage in self._canaries:
            self._look_at_canary(stage, now_s)
        self._raise_failed()
        return None

    def mend(self, model: str) -> None:
        """Begin to reload a model; the judge is told how it ended."""
        self._judge.mending(model)
        for stage in self._stages_of(model):
            if (asked := self._asked.pop(stage, None)) is not None:
                asked.task.cancel()
        self._start(self._mend(model))

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
            self._heard_s = now_s
            self._asked = {stage: replace(asked, sent_s=asked.sent_s + gap_s) for stage, asked in self._asked.items()}

    # Processes.

    def _look_at_triton(self, now_s: float) -> TritonEnded | None:
        reading = read_process(self._running.pid)
        if has_exited(self._running.pid):
            return TritonEnded(event="triton_ended")
        if reading is None or not reading.is_stopped:
            self._stopped_since_s = None
        elif self._stopped_since_s is None:
            self._stopped_since_s = now_s
        elif now_s - self._stopped_since_s > _STOPPED_S:
            return TritonEnded(event="triton_hung", reason="Triton is stopped by a signal")
        silent_s = now_s - self._heard_s
        if silent_s > _SILENT_BUSY_S or (silent_s > _SILENT_S and not has_work(self._running.pid)):
            return TritonEnded(event="triton_hung", reason=f"Triton has answered nothing for {silent_s:.1f} s")
        return None

    def _judge_stub(self, sight: Sight) -> None:
        stub = sight.stub
        if sight.condition == "dead":
            self._judge.stub_down(stub.model, "stub_died", f"its process {stub.pid} ({stub.instance}) died")
        else:
            self._hung_pids.setdefault(stub.model, set()).add(stub.pid)
            self._judge.stub_down(
                stub.model, "stub_hung", f"its process {stub.pid} ({stub.instance}) is stopped by a signal"
            )

    # Canaries.

    def _look_at_canary(self, stage: str, now_s: float) -> None:
        asked = self._asked.get(stage)
        if asked is not None:
            if now_s - asked.sent_s > self._limits.late_s:
                self._judge_late(stage, asked, now_s)
        elif now_s >= self._due_s.get(stage, 0.0) and self._judge.is_asked(stage):
            self._due_s[stage] = now_s + self._limits.interval_s
            task = self._start(self._ask(stage))
            self._asked[stage] = _Asked(sent_s=now_s, successes=self._successes.get(stage, 0), task=task)

    def _judge_late(self, stage: str, asked: _Asked, now_s: float) -> None:
        """Hung is a stage whose processes do nothing, and that completed nothing since: one with a long queue does both.

        Where Triton itself works, or is starved of the CPU, it may not have handed the canary on yet: it gets more time.
        """
        if self._counted_s < asked.sent_s + self._limits.late_s:
            return  # what it completed since is not known yet
        runs, waited_s = self._stages[stage].runs, now_s - asked.sent_s
        is_hung = (
            self._successes.get(stage, 0) <= asked.successes
            and all(self._stubs.is_idle(model, now_s) for model in runs)
            and (waited_s > _PATIENCE * self._limits.late_s or not has_work(self._running.pid))
        )
        if is_hung:
            for model in runs:
                self._hung_pids.setdefault(model, set()).update(self._stubs.idle_pids(model, now_s))
        waits = f"its canary has waited for {waited_s:.1f} s"
        self._judge.late(
            stage, is_hung=is_hung, reason=f"{waits}, and its processes do nothing" if is_hung else f"{waits}; it works"
        )

    async def _ask(self, stage: str) -> None:
        canary, sent_s = self._canaries[stage], time.monotonic()
        try:
            verdict = verdict_of(*await self._api.post(canary.path, canary.body))
        except UnavailableError:  # Triton is gone or going, which its process tells
            return
        finally:
            if (asked := self._asked.get(stage)) is not None and asked.task is asyncio.current_task():
                del self._asked[stage]
        self._heard_s = time.monotonic()
        took_s = self._heard_s - sent_s
        self._metrics.canary(stage, took_s)
        self._judge.answered(stage, verdict.kind, verdict.reason, on_time=took_s <= self._limits.late_s)

    async def _count(self) -> None:
        """Read what every stage has completed, now and then."""
        while True:
            try:
                self._successes = await self._api.successes()
            except RagError:
                pass  # silence is judged by its length
            else:
                self._counted_s = self._heard_s = time.monotonic()
            is_late = any(self._counted_s - asked.sent_s > self._limits.late_s for asked in self._asked.values())
            await asyncio.sleep(self._limits.interval_s / (_HASTE if is_late or self._asked else 1))

    # Reloading.

    async def _mend(self, model: str) -> None:
        try:
            async with asyncio.timeout(self._limits.mend_s):
                await self._reload(model)
                await self._until_served(model)
        except TimeoutError:
            self._judge.mending_failed(model, f"it is not back after {self._limits.mend_s:.0f} s", time.monotonic())
        except RagError as error:
            self._judge.mending_failed(model, error.message, time.monotonic())
        else:
            self._judge.mended(model, time.monotonic())

    async def _reload(self, model: str) -> None:
        ended = self._hung_pids.pop(model, set())
        self._stubs.end(ended)
        beside = can_serve_meanwhile(model, self._stubs, ended, has_gpus=self._has_gpus)
        self._stubs.retire(model, time.monotonic())
        await reload(model, self._running.models_dir, self._api, self._stubs, beside=beside)

    async def _until_served(self, model: str) -> None:
        """Until Triton says that everything is ready and the stages behind which the model stands answer."""
        for loaded in self._running.models:
            while not await self._api.is_ready(loaded):  # noqa: ASYNC110 - Triton tells it to those alone who ask
                await asyncio.sleep(_POLL_S)
        for canary in (self._canaries[stage] for stage in self._stages_of(model)):
            while verdict_of(*await self._api.post(canary.path, canary.body)).kind != "alive":  # noqa: ASYNC110 - likewise
                await asyncio.sleep(_POLL_S)

    def _stages_of(self, model: str) -> list[str]:
        return [stage.name for stage in self._stages.values() if model in stage.runs]

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    def _raise_failed(self) -> None:
        """A task that failed in a way that nobody foresaw ends the supervisor, loudly."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            if not task.cancelled():
                task.result()
