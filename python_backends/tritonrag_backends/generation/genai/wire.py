"""What the generator and its worker process say to each other: length-prefixed JSON over a socket pair.

A frame is its length in bytes (UINT32, little endian) and one JSON object, whose `kind` names the message.

    generator ─▶ worker    Setup, then Job and Cancel; end of file: the generator is gone
    worker ─▶ generator    Ready or Failed, then one Step for each run of the model
"""

import json
import struct
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

_LENGTH: Final = struct.Struct("<I")
_MAX_BYTES: Final = 64 << 20  # a prompt of a million tokens takes 7 MB; more is no frame of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The model to load and how. `threads` 0: the library's choice.

    `batch` and `lanes` are for models that can't batch by themselves.
    """

    model: str
    execution: str
    threads: int
    batch: int
    lanes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One generation: the prompt's token ids and how to go on from them. `temperature` 0: the likeliest token.

    `seed` 0 to 2**31 - 1, None: any. `adapter` names a LoRA adapter of the folder.
    """

    id: int
    tokens: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    adapter: str | None = None

    @property
    def sampled(self) -> bool:
        """Whether chance has a part in it."""
        return self.temperature > 0 and self.top_p > 0 and self.top_k != 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Nobody waits for this generation any more; its End still comes."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The model is loaded; `slots` generations can run at once, the adapters can be asked for."""

    slots: int
    adapters: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The model can't be loaded; `code` is one of our errors' and the worker ends."""

    code: str
    message: str


class End(NamedTuple):
    """A generation is over and its place free.

    `reason`: stop, length, cancelled or error; the last with an error's code and message.
    """

    id: int
    reason: str
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one run of the model brought: generations that left the queue, [id, new token ids] of those that run, and ends."""

    started: list[int]
    tokens: list[tuple[int, list[int]]]
    ends: list[End]

    def __bool__(self) -> bool:
        return bool(self.started or self.tokens or self.ends)


WireMessage = Setup | Job | Cancel | Ready | Failed | Step
_KINDS: Final = {kind.__name__: kind for kind in (Setup, Job, Cancel, Ready, Failed, Step)}


class WireError(Exception):
    """What came is no message of ours: the other side is another version, or broken."""


def to_frame(message: WireMessage) -> bytes:
    """The message as it goes over the socket."""
    content = {field.name: getattr(message, field.name) for field in fields(message)}
    body = json.dumps({"kind": type(message).__name__, **content}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[WireMessage]:
        """The messages that are complete with these bytes. Raises WireError."""
        self._bytes += data
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > _MAX_BYTES:
                raise WireError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                break
            messages.append(_parse(self._bytes[_LENGTH.size : end]))
            del self._bytes[:end]
        return messages


def _parse(body: bytes | bytearray) -> WireMessage:
    try:
        content = json.loads(body)
        message: WireMessage = _KINDS[content.pop("kind")](**content)
        if isinstance(message, Step):
            return Step(
                started=list(message.started),
                tokens=[(job, list(tokens)) for job, tokens in message.tokens],
                ends=[End(*end) for end in message.ends],
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WireError("a frame that is no message") from error
    return message
