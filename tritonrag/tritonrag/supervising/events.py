"""What happened to the server, told in one place: a line on stderr for each event, and a count in the metrics.

The reasons are Triton's and our own words about processes; a question's text and secrets are in none of them.
"""

import json
import os
import sys
import threading
from collections import deque
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
_NOT_WRITTEN: Final = "not_written"  # stands in the metric alone
_MOST_WAITING: Final = 256  # lines
_PATIENCE_S: Final = 1.0


class Events:
    """Writes and counts. May be used from any thread: a line is one write.

    Nothing is raised, and nobody waits for long: what can't be written is counted as `not_written` and dropped.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        count: Callable[[str, str], None] = lambda _event, _model: None,
        stream: TextIO | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`count` is told the event and the model; `stream` None is stderr."""
        self._as_json, self._count, self._now = as_json, count, now
        self._writer = _Writer(stream, dropped=lambda: count(_NOT_WRITTEN, TRITON))

    def tell(self, event: EventName, model: str, reason: str, **more: Any) -> None:  # noqa: ANN401 - what JSON takes
        """Something happened to a model, or to Triton (TRITON); `more` stands in the JSON alone."""
        self._count(event, model)
        reason = " ".join(reason.split())
        reason = reason if len(reason) <= _LONGEST else reason[:_LONGEST] + "..."
        self._writer.write(self._line(event, model, reason, more) + "\n")

    def _line(self, event: str, model: str, reason: str, more: dict[str, Any]) -> str:
        time = self._now().isoformat(timespec="milliseconds")
        if self._as_json:
            fields = {"time": time, "event": event, "model": model, "reason": reason, **more}
            return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)
        return f"{time} {model}: {reason}"


class _Writer:
    """Writes in a thread of its own, for a terminal or pipe that nobody reads holds up who writes to it."""

    def __init__(self, stream: TextIO | None, *, dropped: Callable[[], None]) -> None:
        self._stream, self._dropped = stream, dropped
        self._lines: deque[str] = deque()  # the first one is being written
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def write(self, line: str) -> None:
        """Returns once it is written, so that a program's last word is not lost; where that takes long, without it."""
        with self._changed:
            if len(self._lines) >= _MOST_WAITING:
                self._dropped()
                return
            patience_s = 0.0 if self._lines else _PATIENCE_S
            self._lines.append(line)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._lines, patience_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                line = self._lines[0]
            try:
                self._put(line)
            except (OSError, ValueError):  # a full disk, a reader that is gone, a stream that was closed
                self._dropped()
            with self._changed:
                self._lines.popleft()
                self._changed.notify_all()

    def _put(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(line)
            self._stream.flush()
            return
        # Not through Python's buffer: what failed stays in it, and Python aborts at its end where a thread is held up in it.
        descriptor, left = sys.stderr.fileno(), line.encode(errors="backslashreplace")
        while left:
            left = left[os.write(descriptor, left) :]


def wants_json(*, asked: bool, stream: TextIO | None = None) -> bool:
    """JSON where it is asked for, and where no person sits at the other end."""
    return asked or not (stream or sys.stderr).isatty()
