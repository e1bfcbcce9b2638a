"""What happened to the server, told in one place: a line on stderr for each event, and a count in the metrics.

The reasons are Triton's and our own words about processes; a question's text and secrets are in none of them.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

EventName = Literal[
    "ready",
    "not_ready",
    "stub_died",
    "stub_hung",
    "stage_slow",
    "stage_failing",
    "stage_good",
    "mending",
    "mended",
    "mending_failed",
    "triton_ended",
    "triton_hung",
    "triton_restarting",
    "triton_started",
    "start_failed",
    "gave_up",
    "draining",
    "swept",
]
TRITON: Final = "triton"  # what an event is about where it is no model
_LONGEST: Final = 400  # characters of a reason: Triton's own may be a page


class Events:
    """Writes and counts. May be used from any thread: a line is one write."""

    def __init__(
        self,
        *,
        as_json: bool,
        count: Callable[[str, str], None] = lambda _event, _model: None,
        stream: TextIO | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`count` is told the event and the model; `stream` None is stderr."""
        self._as_json, self._count, self._stream, self._now = as_json, count, stream, now

    def tell(self, event: EventName, model: str, reason: str, **more: Any) -> None:  # noqa: ANN401 - what JSON takes
        """Something happened to a model, or to Triton (TRITON); `more` stands in the JSON alone."""
        self._count(event, model)
        reason = " ".join(reason.split())
        reason = reason if len(reason) <= _LONGEST else reason[:_LONGEST] + "..."
        stream = self._stream or sys.stderr
        stream.write(self._line(event, model, reason, more) + "\n")
        stream.flush()

    def _line(self, event: str, model: str, reason: str, more: dict[str, Any]) -> str:
        time = self._now().isoformat(timespec="milliseconds")
        if self._as_json:
            fields = {"time": time, "event": event, "model": model, "reason": reason, **more}
            return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)
        return f"{time} {model}: {reason}"


def wants_json(*, asked: bool, stream: TextIO | None = None) -> bool:
    """JSON where it is asked for, and where no person sits at the other end."""
    return asked or not (stream or sys.stderr).isatty()
