"""When each request of a trace is due in a replay."""

from dataclasses import dataclass

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.trace.requests import Trace, TracedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A request, `at_s` seconds after the replay's beginning."""

    at_s: float
    request: TracedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of a trace that is replayed: from `start_s` of the trace on, `speed` times as fast, for `seconds` of the replay."""

    speed: float = 60.0
    seconds: float = 120.0
    start_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise BadRequestError(
                f"speed is {self.speed:g}; give a number above 0, such as 60 for a minute in a second"
            )
        if not self.seconds > 0:
            raise BadRequestError(f"seconds is {self.seconds:g}; give a number above 0")
        if not self.start_s >= 0:
            raise BadRequestError(f"start_s is {self.start_s:g}; give 0 or a later second of the trace")

    def of(self, trace: Trace) -> tuple[Due, ...]:
        """What is due, earliest first. Raises BadRequestError where that is nothing."""
        times = ((request, (request.arrival_s - self.start_s) / self.speed) for request in trace.requests)
        due = tuple(Due(at_s=at_s, request=request) for request, at_s in times if 0 <= at_s < self.seconds)
        if not due:
            last_s = trace.requests[-1].arrival_s
            raise BadRequestError(
                f"no request of the trace comes in {self.seconds * self.speed:g} s from second {self.start_s:g} on;"
                f" its last one comes at {last_s:g}"
            )
        return due
