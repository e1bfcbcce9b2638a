"""The protocol between the generator model and whatever writes the answer.

Prompt and sampling in, an async stream of deltas out; closing the stream aborts the work inside the engine and frees its memory.
One process, one event loop, many streams at once.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tritonrag_client.contract import FinishReason, Passage, Turn
from tritonrag_client.errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat, as chat templates and OpenAI-compatible servers take it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the answer is written from.

    `passages` are in rank order: passage i is source i + 1. `messages` is what an engine with a language model reads; an engine
    without one (capabilities.reads_messages is false) gets none and reads question, passages and history. `tenant` keeps
    what an engine remembers of one tenant's prompts from another's.
    """

    question: str
    passages: tuple[Passage, ...]
    history: tuple[Turn, ...] = ()
    messages: tuple[Message, ...] = ()
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the answer is written. An engine refuses what it can't honour rather than ignore it.

    `temperature` 0 takes the likeliest token each time. `top_p` and `seed` None: the engine's own choice.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop_words: tuple[str, ...] = ()
    lora_name: str | None = None

    @property
    def deterministic(self) -> bool:
        """Whether the same prompt is meant to give the same answer again."""
        return self.temperature == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one generation: of the prompt, of the answer, and those of the prompt that were reused from a cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of the answer: whole characters, never half of one.

    `finish_reason` is None but for the last one, which may bear `usage`; `degraded` tells what was given up and why.
    """

    text: str
    finish_reason: FinishReason | None = None
    degraded: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do; fixed once it is open.

    `engine` is the setting's name; `model` says which model writes; `fingerprint` changes whenever the same prompt may be
    answered differently: it is part of cache keys. `context_tokens` bounds prompt and answer together, None: not bounded.
    `lora_names`: the adapters that `lora_name` may ask for; None: unknown here, the server behind decides.
    `seeds`: whether `seed` makes sampling repeatable.
    """

    engine: str
    model: str
    fingerprint: str
    context_tokens: int | None
    reads_messages: bool
    seeds: bool
    lora_names: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy an engine is: generations that run, those that wait for a place, and how many can run at once (None: no limit)."""

    running: int
    waiting: int
    slots: int | None = None


class Engine(Protocol):
    """Writes answers. Made once per process, used by many requests at once; all calls come from one event loop."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def load(self) -> Load:
        """How busy it is now."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of these messages as a prompt, what the chat template adds included. At once: no waiting, no I/O."""
        ...

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """Stream the answer's deltas; the last one bears a finish_reason, `stop` or `length`. `aclose()` aborts.

        Raises BadRequestError (before the first delta) where `sampling` asks for what the engine can't do, OverloadedError where
        it has no place, UnavailableError, DeadlineError or InternalError where it fails, before the first delta or after it.
        """
        ...

    async def close(self) -> None:
        """Free everything; running generations end with UnavailableError."""
        ...


def require_able(capabilities: Capabilities, sampling: Sampling) -> None:
    """Raises BadRequestError where `sampling` asks for an adapter or a seed that the engine does not have."""
    names = capabilities.lora_names
    if sampling.lora_name is not None and names is not None and sampling.lora_name not in names:
        have = f"use one of {', '.join(names)}" if names else f"the {capabilities.engine} engine has none; leave it out"
        raise BadRequestError(f"lora_name is {sampling.lora_name[:80]!r}; {have}")
    if sampling.seed is not None and not capabilities.seeds:
        raise BadRequestError(
            f"seed is {sampling.seed}, and the {capabilities.engine} engine can't repeat an answer; leave it out"
        )
