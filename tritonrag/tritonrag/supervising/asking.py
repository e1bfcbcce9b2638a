"""Canaries under way, and what Triton counts meanwhile: whether a stage answers, is slow, or hangs.

A stage is slow while anything tells that it works: it completes requests, its processes use the CPU or wait for a disk. It hangs
once its canary is late and nothing has told so for as long. A queue, however long, is therefore never taken for a hang.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from tritonrag.supervising.canaries import canaries_of, verdict_of
from tritonrag.supervising.judge import Judge, Stage
from tritonrag.supervising.limits import WatchLimits
from tritonrag.supervising.metrics import SupervisorMetrics
from tritonrag.supervising.stubs import StubWatch
from tritonrag.supervising.tasks import Tasks
from tritonrag_client.errors import RagError, UnavailableError

_PATIENCE: Final = 5  # times as long may a stage complete nothing while Triton has work
_HASTE: Final = 3  # counts are read so many times as often while a canary is under way


class AskingApi(Protocol):
    """What is asked of Triton. Both raise UnavailableError where it does not answer."""

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body of the answer."""

    async def successes(self) -> dict[str, int]:
        """How many requests each model has completed so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A canary under way; `worked_s` is when its stage was last seen to have completed something, or when it was sent."""

    sent_s: float
    worked_s: float
    task: "asyncio.Task[None]"


class Asking:
    """Sends the canaries of one Triton and tells the judge what comes of them. `triton_works` says whether Triton itself does."""

    def __init__(
        self,
        stages: Iterable[Stage],
        judge: Judge,
        limits: WatchLimits,
        *,
        api: AskingApi,
        stubs: StubWatch,
        tasks: Tasks,
        metrics: SupervisorMetrics,
        triton_works: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._canaries = canaries_of(self._stages)
        self._judge, self._limits, self._api, self._stubs, self._tasks = judge, limits, api, stubs, tasks
        self._metrics, self._triton_works, self._clock = metrics, triton_works, clock
        self._asked: dict[str, _Asked] = {}
        self._due_s: dict[str, float] = {}
        self._successes: dict[str, int] = {}
        self._counted_s = self._heard_s = clock()

    @property
    def heard_s(self) -> float:
        """When Triton last answered anything."""
        return self._heard_s

    def look(self, now_s: float) -> None:
        """Send the canaries that are due, and judge those that are late."""
        for stage in self._canaries:
            asked = self._asked.get(stage)
            if asked is not None:
                if now_s - asked.sent_s > self._limits.late_s:
                    self._judge_late(stage, asked, now_s)
            elif now_s >= self._due_s.get(stage, 0.0) and self._judge.is_asked(stage):
                self._due_s[stage] = now_s + self._limits.interval_s
                task = self._tasks.start(self._ask(stage))
                self._asked[stage] = _Asked(sent_s=now_s, worked_s=now_s, task=task)

    def forgive(self, gap_s: float, now_s: float) -> None:
        """Blame nobody for what was not answered or completed in the last `gap_s` seconds."""
        self._heard_s = now_s
        self._asked = {
            stage: replace(asked, sent_s=asked.sent_s + gap_s, worked_s=asked.worked_s + gap_s)
            for stage, asked in self._asked.items()
        }

    def forget(self, stage: str) -> None:
        """Wait no more for its canary."""
        if (asked := self._asked.pop(stage, None)) is not None:
            asked.task.cancel()

    async def follow_counts(self) -> None:
        """Read what every stage has completed, now and then, for ever."""
        while True:
            await self.count()
            await asyncio.sleep(self._limits.interval_s / (_HASTE if self._asked else 1))

    async def count(self) -> None:
        """Read it once. A count that changed, be it to 0 in a model that was loaded anew, tells that the stage works."""
        try:
            successes = await self._api.successes()
        except RagError:
            return  # silence is judged by its length
        self._counted_s = self._heard_s = self._clock()
        self._asked = {
            stage: asked
            if successes.get(stage, 0) == self._successes.get(stage, 0)
            else replace(asked, worked_s=max(asked.worked_s, self._counted_s))
            for stage, asked in self._asked.items()
        }
        self._successes = successes

    def _judge_late(self, stage: str, asked: _Asked, now_s: float) -> None:
        if self._counted_s < asked.sent_s + self._limits.late_s:
            return  # what it completed since is not known yet
        is_hung = self._is_hung(stage, self._counted_s - asked.worked_s, now_s)
        if is_hung:  # an ensemble has no processes of its own: nobody knows whose hang
            self._stubs.blame(self._stubs.idle_pids(stage, now_s))
        waits = f"its canary has waited for {now_s - asked.sent_s:.1f} s"
        self._judge.late(
            stage, is_hung=is_hung, reason=f"{waits}, and its processes do nothing" if is_hung else f"{waits}; it works"
        )

    def _is_hung(self, stage: str, quiet_s: float, now_s: float) -> bool:
        """Whether it completed nothing for a while and its processes do nothing; one with a long queue does both.

        Where Triton itself works, or is starved of the CPU, it may not have handed the canary on yet: it gets more time. What runs
        in Triton's own process, such as an `encoder` of ONNX Runtime, works where Triton does.
        """
        runs = self._stages[stage].runs
        in_stubs = [model for model in runs if self._stubs.of(model)]
        if quiet_s < self._least_quiet_s(stage) or not all(self._stubs.is_idle(model, now_s) for model in in_stubs):
            return False
        is_patience_over = quiet_s > _PATIENCE * self._limits.late_s
        if len(in_stubs) < len(runs):
            return is_patience_over and not self._triton_works()
        return is_patience_over or not self._triton_works()

    def _least_quiet_s(self, stage: str) -> float:
        """An ensemble waits until the canaries of its parts are late, which tell what is to be reloaded."""
        late_s = self._limits.late_s
        return late_s if stage in self._stages[stage].runs else self._limits.interval_s + 2 * late_s

    async def _ask(self, stage: str) -> None:
        canary, sent_s = self._canaries[stage], self._clock()
        try:
            verdict = verdict_of(*await self._api.post(canary.path, canary.body))
        except UnavailableError:  # Triton is gone or going, which its process tells
            return
        finally:
            if (asked := self._asked.get(stage)) is not None and asked.task is asyncio.current_task():
                del self._asked[stage]
        self._heard_s = self._clock()
        took_s = self._heard_s - sent_s
        self._metrics.canary(stage, took_s)
        if verdict.kind == "dead":  # by whose death, the processes tell
            look_at_stubs(self._stubs, self._judge, self._heard_s)
        self._judge.answered(
            stage, verdict.kind, verdict.reason, detail=verdict.detail, on_time=took_s <= self._limits.late_s
        )


def look_at_stubs(stubs: StubWatch, judge: Judge, now_s: float) -> None:
    """Tell the judge of the processes that are dead, or stopped for a while."""
    for sight in stubs.look(now_s):
        stub = sight.stub
        who = f"its process {stub.pid} ({stub.instance})"
        if sight.condition == "dead":
            judge.stub_down(stub.model, "stub_died", f"{who} died")
        else:
            judge.stub_down(stub.model, "stub_hung", f"{who} is stopped by a signal")
