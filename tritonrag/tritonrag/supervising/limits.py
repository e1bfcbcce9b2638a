"""The times of watching one Triton."""

from dataclasses import dataclass
from typing import Final

from tritonrag_backends.settings import SupervisorSettings

_MOST_OF_START_S: Final = 600.0  # a first start may build engines for half an hour, which a reload finds built


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Seconds between two canaries of a stage, until one is late, that reloading a model may take, and that healthy processes of
    the old one then get for what they have begun.
    """

    interval_s: float
    late_s: float
    mend_s: float
    leave_s: float

    @classmethod
    def of(cls, settings: SupervisorSettings, *, start_s: float, leave_s: float) -> "WatchLimits":
        """Where Triton took `start_s` to start: a reload may take twice that, up to ten minutes, or what the settings say."""
        return cls(
            interval_s=settings.interval_s,
            late_s=settings.late_s,
            mend_s=max(settings.repair_timeout_s, min(2 * start_s, _MOST_OF_START_S)),
            leave_s=leave_s,
        )
