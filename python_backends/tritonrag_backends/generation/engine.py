"""The protocol between the generator model and whatever writes the answer.

Prompt and sampling in, an async stream of deltas out; closing the stream aborts the work inside the engine and frees its memory.
One process, one event loop, many streams at once.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from tritonrag_client.contract import FinishReason, Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the answer is written from. `passages` are in rank order: passage i is source i + 1."""

    question: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the answer is written. An engine refuses what it can't honour rather than ignore it."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_words: tuple[str, ...] = ()
    lora_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of the answer. `finish_reason` is None but for the last one; `degraded` tells what was given up and why."""

    text: str
    finish_reason: FinishReason | None = None
    degraded: str = ""


class Engine(Protocol):
    """Writes answers. Made once per process, used by many requests at once."""

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Stream the answer's deltas; the last one bears a finish_reason. `aclose()` aborts.

        Raises BadRequestError (before the first delta) where `sampling` asks for what the engine can't do.
        """
        ...

    async def close(self) -> None:
        """Free everything."""
        ...
