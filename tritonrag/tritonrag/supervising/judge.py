"""What observations mean and what is to be done: a state for each model, no I/O, and the clock handed in.

    starting ──> good <──> slow, failing     a canary's answer moves a model between these
        └─────────┴──> down ──> mending      a dead or hung process; the model is reloaded
    mending ──> good                         it is asked until it answers
        └─────> Triton is restarted, and every model is starting again

Ready is a server whose Triton runs and whose models are all good or slow.

A `reason` is what /health tells on the network: our own words. A `detail` may hold Triton's, with paths and tracebacks: events and
errors alone tell it, in place of the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tritonrag.supervising.backoff import Backoff
from tritonrag.supervising.events import TRITON, EventName
from tritonrag.supervising.report import Degraded, PartState


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A model that is asked by canaries, and the models with processes behind it: itself, or an ensemble's parts."""

    name: str
    runs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """Reload a model."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Restart Triton."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Triton can't be started: end."""

    reason: str


Action = Mend | Restart | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event to be told."""

    event: EventName
    model: str
    reason: str
    more: dict[str, Any] = field(default_factory=dict)


_UNASKED: Final = "no canary was answered since Triton started"
_ON_TIME: Final = 3  # answers in a row until a slow stage is good again: else it would be told of every second one


@dataclass(slots=True)
class _Part:
    """A model. `reason` is "" where all is well; `on_time` counts its latest answers in a row that were."""

    state: PartState = "starting"
    reason: str = _UNASKED
    on_time: int = 0
    backoff: Backoff = field(default_factory=Backoff)


class Judge:
    """Observations in, decisions out; one thread. `now_s` is of any clock that only goes forward."""

    def __init__(self, stages: Iterable[Stage], *, most_failed_starts: int) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._parts = {name: _Part() for stage in self._stages.values() for name in (stage.name, *stage.runs)}
        self._most_failed_starts = most_failed_starts
        self._failed_starts = 0
        self._restart_because = self._restart_detail = ""
        self._backoff = Backoff()
        self._happenings: list[Happening] = []
        self.restarts = 0
        self.repairs = 0

    @property
    def is_ready(self) -> bool:
        """Whether Triton runs and every model works, be it slowly."""
        return not self._restart_because and all(part.state in {"good", "slow"} for part in self._parts.values())

    @property
    def wants_restart(self) -> bool:
        """Whether Triton is to be restarted, be it later."""
        return bool(self._restart_because)

    @property
    def is_mending(self) -> bool:
        """Whether a model is being reloaded."""
        return any(part.state == "mending" for part in self._parts.values())

    def states(self) -> dict[str, PartState]:
        """The state of every model."""
        return {name: part.state for name, part in sorted(self._parts.items())}

    def degraded(self) -> tuple[Degraded, ...]:
        """What is not as it should be, and why."""
        parts = [Degraded(stage=n, reason=part.reason) for n, part in sorted(self._parts.items()) if part.reason]
        return (*([Degraded(stage=TRITON, reason=self._restart_because)] if self._restart_because else []), *parts)

    def happenings(self) -> list[Happening]:
        """What is to be told since the last time."""
        told, self._happenings = self._happenings, []
        return told

    def is_asked(self, stage: str) -> bool:
        """Whether a canary makes sense now: a model that is being reloaded has none."""
        return not self._restart_because and not any(self._parts[n].state == "mending" for n in self._behind(stage))

    def is_whole(self, stage: str, *, but: str = "") -> bool:
        """Whether neither it nor a model behind it, other than `but`, is known to be down: else its canary tells nothing new."""
        return not any(self._parts[name].state in {"down", "mending"} for name in self._behind(stage) if name != but)

    # Observations.

    def stub_down(self, model: str, event: Literal["stub_died", "stub_hung"], reason: str) -> None:
        """A process of the model is dead or hung."""
        part = self._parts.setdefault(model, _Part())
        if part.state not in {"down", "mending"}:
            self._move(model, "down", event, reason)

    def answered(
        self,
        stage: str,
        verdict: Literal["alive", "failing", "dead"],
        reason: str = "",
        *,
        detail: str = "",
        on_time: bool = True,
    ) -> None:
        """A canary was answered. `dead`: Triton says that the model has no process or is not loaded."""
        if not self.is_whole(stage):
            return
        part = self._parts[stage]
        part.on_time = part.on_time + 1 if on_time and verdict == "alive" else 0
        if verdict == "dead":
            self._hung(stage, "stub_died", reason, detail)
        elif verdict == "failing":
            self._move(stage, "failing", "stage_failing", reason, detail)
        else:
            self._alive(stage)

    def late(self, stage: str, *, is_hung: bool, reason: str) -> None:
        """A canary waits longer than it should: with a sign of work the stage is slow, without any it is hung."""
        if not self.is_whole(stage):
            return
        if is_hung:
            self._hung(stage, "stub_hung", reason)
        else:
            self._move(stage, "slow", "stage_slow", reason)

    def triton_down(self, event: Literal["triton_ended", "triton_hung"], reason: str, detail: str = "") -> None:
        """Triton has ended, or does not answer any more."""
        if not self._restart_because:
            self._tell(event, TRITON, detail or reason)
        self._want_restart(reason, detail)

    # Outcomes of actions.

    def mending(self, model: str) -> None:
        """The model is being reloaded."""
        self._move(model, "mending", "mending", self._parts[model].reason)

    def mended(self, model: str, now_s: float) -> None:
        """It was reloaded and answers."""
        self._parts[model].backoff.repaired(now_s)
        self.repairs += 1
        self._move(model, "good", "mended", "")

    def mending_failed(self, model: str, reason: str, now_s: float, detail: str = "") -> None:
        """It does not come back by itself: Triton is to be restarted."""
        self._parts[model].backoff.repaired(now_s)
        self._move(model, "down", "mending_failed", reason, detail)
        could_not = f"{model} could not be reloaded"
        self._want_restart(f"{could_not}: {reason}", f"{could_not}: {detail or reason}")

    def started(self, now_s: float) -> None:
        """Triton was restarted and says that it is ready."""
        self._backoff.repaired(now_s)
        self.restarts += 1
        self._failed_starts, self._restart_because, self._restart_detail = 0, "", ""
        known = {name for stage in self._stages for name in self._behind(stage)}
        self._parts = {name: _Part(backoff=part.backoff) for name, part in self._parts.items() if name in known}
        self._tell("triton_started", TRITON, "started again", restarts=self.restarts)

    def start_failed(self, reason: str, now_s: float, detail: str = "") -> None:
        """Triton could not be started."""
        self._backoff.repaired(now_s)
        self._failed_starts += 1
        self._restart_because, self._restart_detail = reason, detail
        self._tell("start_failed", TRITON, detail or reason, failed_starts=self._failed_starts)

    def decide(self, now_s: float) -> Action | None:
        """What is to be done now; None: nothing, or not yet.

        Models are reloaded one after the other: Triton (2.51.0) was seen to answer nothing any more while it loaded four at once.
        """
        if not self._restart_because:
            if self.is_mending:
                return None
            due = [name for name, part in self._parts.items() if part.state == "down" and part.backoff.is_due(now_s)]
            return Mend(model=due[0], reason=self._parts[due[0]].reason) if due else None
        why = self._restart_detail or self._restart_because
        if self._failed_starts >= self._most_failed_starts:
            return GiveUp(reason=f"Triton did not start {self._failed_starts} times in a row: {why}")
        return Restart(reason=why) if self._backoff.is_due(now_s) else None

    def _hung(self, stage: str, event: EventName, reason: str, detail: str = "") -> None:
        """A stage with processes of its own is reloaded; an ensemble hangs by a part that nobody can name: restart."""
        if stage in self._stages[stage].runs:
            self._move(stage, "down", event, reason, detail)
        else:
            self._move(stage, "failing", event, reason, detail)
            self._want_restart(f"{stage}: {reason}", f"{stage}: {detail or reason}")

    def _want_restart(self, reason: str, detail: str) -> None:
        """The first reason is the one that is told."""
        if not self._restart_because:
            self._restart_because, self._restart_detail = reason, detail

    def _alive(self, stage: str) -> None:
        part = self._parts[stage]
        if part.state != "good" and (part.state != "slow" or part.on_time >= _ON_TIME):
            self._move(stage, "good", "stage_good", "")
        for model in self._stages[stage].runs - {stage}:
            if self._parts[model].state == "starting":
                self._move(model, "good", "stage_good", "")

    def _behind(self, stage: str) -> Iterable[str]:
        return (stage, *self._stages[stage].runs)

    def _move(self, model: str, state: PartState, event: EventName, reason: str, detail: str = "") -> None:
        part = self._parts[model]
        if part.state != state:
            self._tell(event, model, detail or reason or _GOOD[event])
        part.state, part.reason = state, reason

    def _tell(self, event: EventName, model: str, reason: str, **more: Any) -> None:  # noqa: ANN401 - what JSON takes
        self._happenings.append(Happening(event=event, model=model, reason=reason, more=more))


_GOOD: dict[str, str] = {"stage_good": "answers its canary", "mended": "reloaded, and answers its canary"}
