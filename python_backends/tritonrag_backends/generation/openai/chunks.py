"""What the chunks of a chat completion say. A server's word is checked before it is used; what is not needed is not read."""

import json
from dataclasses import dataclass
from typing import Any

from tritonrag_backends.generation.engine import Usage
from tritonrag_backends.generation.openai.failures import Judge, cut_off
from tritonrag_client.contract import FinishReason

# The older names are those of Hugging Face's TGI.
_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "stop",
}
_ABORTED = frozenset({"abort", "aborted", "cancelled", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one chunk adds to the answer; `thinking`: it holds none of the answer's text, but the model is at work."""

    text: str = ""
    thinking: bool = False
    finish_reason: FinishReason | None = None
    degraded: str = ""
    usage: Usage | None = None

    @property
    def begins(self) -> bool:
        """Whether the model has begun: what came before this may be asked for again."""
        return bool(self.text) or self.thinking or self.finish_reason is not None


def read_chunk(data: str, judge: Judge, *, named: bool) -> Piece:
    """One chunk of a stream, or a completion that came whole. Raises ServerFailure for an error in it, or for garbage.

    `named`: the request itself named the model.
    """
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        raise judge.garbage("garbage instead of JSON", data) from None
    if not isinstance(chunk, dict):
        raise judge.garbage("JSON that is no completion", data)
    if chunk.get("error") or chunk.get("object") == "error":
        raise judge.told(chunk.get("error") or chunk, named=named)
    usage = _usage(chunk.get("usage"))
    try:
        choices = chunk["choices"]
        return _piece(choices[0], usage, judge) if choices else Piece(usage=usage)
    except (TypeError, LookupError, AttributeError):
        raise judge.garbage("JSON that is no completion", data) from None


def _piece(choice: dict[str, Any], usage: Usage | None, judge: Judge) -> Piece:
    message = choice.get("delta") or choice.get("message") or {}
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError
    finish_reason, degraded = _finish(choice.get("finish_reason"), judge)
    thinking = bool(message.get("reasoning_content") or message.get("reasoning"))
    return Piece(text=text, thinking=thinking, finish_reason=finish_reason, degraded=degraded, usage=usage)


def _finish(told: object, judge: Judge) -> tuple[FinishReason | None, str]:
    """The reason in our words, and what is to be said about it."""
    if told is None or told == "":
        return None, ""
    if not isinstance(told, str):
        raise TypeError
    if told in _ABORTED:
        raise cut_off(f"it ended the answer with finish_reason {told!r}")
    if told == "content_filter":
        return "stop", "the language model's server filtered the answer"
    if told in _FINISH_REASONS:
        return _FINISH_REASONS[told], ""
    return "stop", f"the language model's server ended the answer for a reason of its own: {judge.excerpt(told)!r}"


def _usage(told: object) -> Usage | None:
    """None where there is none, or one that makes no sense: an answer does not fail for its statistics."""
    if not isinstance(told, dict):
        return None
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt, completion, cached = (
        _count(n) for n in (told.get("prompt_tokens"), told.get("completion_tokens"), cached or 0)
    )
    if prompt is None or completion is None or cached is None:
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def _count(told: object) -> int | None:
    return told if isinstance(told, int) and told >= 0 else None
