"""What the supervisor tells of the server's health."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

PartState = Literal["starting", "good", "slow", "failing", "down", "mending"]
"""Of a model: `slow` answers late but works, `failing` answers with errors, `down` is dead or hung, `mending` is being reloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """A model, or Triton itself, that is not as it should be."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """`since` is when `ready` last changed. `restarts` counts Triton's, `repairs` the models that were reloaded."""

    live: bool = True
    ready: bool = False
    draining: bool = False
    degraded: tuple[Degraded, ...] = ()
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    restarts: int = 0
    repairs: int = 0
    models: Mapping[str, PartState] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As /health gives it."""
        return {
            "live": self.live,
            "ready": self.ready,
            "draining": self.draining,
            "degraded": [{"stage": one.stage, "reason": one.reason} for one in self.degraded],
            "since": self.since.isoformat(timespec="milliseconds"),
            "restarts": self.restarts,
            "repairs": self.repairs,
            "models": dict(self.models),
        }


def end_of_process(name: str, status: int | None) -> str:
    """How a process has ended, `status` as subprocess tells it, negative for a signal; None where that is not known."""
    if status is None:
        return f"{name} has ended"
    if status >= 0:
        return f"{name} ended with status {status}"
    try:
        return f"{name} was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"{name} was ended by signal {-status}"
