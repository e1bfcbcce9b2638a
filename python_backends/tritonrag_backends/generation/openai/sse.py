"""Server-sent events out of a stream of bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream."""

import re
from dataclasses import dataclass

MAX_LINE_BYTES = 1 << 20
MAX_EVENT_BYTES = 4 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseError(ValueError):
    """A line or an event beyond its bound; the parser is of no use any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `kind` is "message" where the stream names none. Ids and retry times are not kept: nothing is resumed."""

    kind: str
    data: str


class SseParser:
    """Takes bytes as they come, cut anywhere, and gives the events that are complete. What no empty line ended never comes out."""

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._after_cr = False  # a \n that comes next belongs to a line end that was taken already
        self._at_start = True
        self._kind = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with these bytes. Raises SseError for a line or an event beyond its bound."""
        if not chunk:
            return []
        rest = chunk[1:] if self._after_cr and chunk.startswith(b"\n") else chunk
        self._after_cr = chunk.endswith(b"\r")
        events: list[Event] = []
        *ended, begun = _LINE_END.split(rest)
        for piece in ended:
            event = self._take(self._whole_line(piece))
            if event is not None:
                events.append(event)
        self._extend(begun)
        return events

    def _extend(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > self._max_line_bytes:
            raise SseError(f"a line has more than {self._max_line_bytes:,} bytes")

    def _whole_line(self, piece: bytes) -> str:
        self._extend(piece)
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        return line.decode(errors="replace")  # the specification's own way with bytes that are no UTF-8

    def _take(self, line: str) -> Event | None:
        """The event that this line completes, if any."""
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")  # a comment's name is empty
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._max_event_bytes:
                raise SseError(f"an event has more than {self._max_event_bytes:,} bytes")
            self._data.append(value)
        return None

    def _dispatch(self) -> Event | None:
        event = Event(kind=self._kind or "message", data="\n".join(self._data)) if self._data else None
        self._kind, self._data, self._data_bytes = "", [], 0
        return event
