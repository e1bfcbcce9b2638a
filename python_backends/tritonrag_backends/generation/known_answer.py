"""An answer that is known already, how it is written down, and what keeps it."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol

from tritonrag_backends.generation.engine import Usage

_VERSION: Final = 1
_FIELDS: Final = {"version", "key", "text", "finish_reason", "usage", "sha256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswer:
    """A complete answer in which nothing was given up."""

    text: str
    finish_reason: Literal["stop", "length"]
    usage: Usage | None = None


class AnswerStore(Protocol):
    """Keeps answers. Never raises: a store that fails gives a miss or does nothing, and counts it.

    `counts`: how often what happened, by a word for it; for metrics.
    """

    @property
    def counts(self) -> Counter[str]:
        """What happened how often."""
        ...

    async def get(self, key: str) -> KnownAnswer | None:
        """The answer under this key; None: not known, or not to be had."""
        ...

    async def put(self, key: str, answer: KnownAnswer) -> None:
        """Keep it, as far as there is room. Waits for nothing slow."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


def encode(key: str, answer: KnownAnswer) -> bytes:
    """The form outside this process: JSON that bears the key and a checksum over all of it."""
    fields = {
        "version": _VERSION,
        "key": key,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": None if answer.usage is None else asdict(answer.usage),
    }
    return _json({**fields, "sha256": hashlib.sha256(_json(fields)).hexdigest()})


def decode(key: str, data: bytes) -> KnownAnswer:
    """Read it back. Raises ValueError for anything that `encode` did not write for this very key."""
    try:
        fields = json.loads(data.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise ValueError("it is not an answer")
    checksum = fields.pop("sha256")
    if fields["version"] != _VERSION or fields["key"] != key:
        raise ValueError("it is of another version or under another key")
    if hashlib.sha256(_json(fields)).hexdigest() != checksum:
        raise ValueError("its checksum is wrong")
    return _checked(fields["text"], fields["finish_reason"], fields["usage"])


def _checked(text: object, finish_reason: object, usage: object) -> KnownAnswer:
    """Whoever can write to the store can write a right checksum too: types are looked at all the same."""
    if not isinstance(text, str) or finish_reason not in {"stop", "length"}:
        raise ValueError("text or finish_reason is none")
    return KnownAnswer(text=text, finish_reason="stop" if finish_reason == "stop" else "length", usage=_usage(usage))


def _usage(usage: object) -> Usage | None:
    if usage is None:
        return None
    names = {"prompt_tokens", "completion_tokens", "cached_tokens"}
    if not isinstance(usage, dict) or usage.keys() != names:
        raise ValueError("usage is none")
    if not all(type(count) is int and count >= 0 for count in usage.values()):
        raise ValueError("usage counts no tokens")
    return Usage(**usage)


def _json(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
