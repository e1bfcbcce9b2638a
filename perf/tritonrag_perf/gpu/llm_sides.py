"""The same prompt answered by the engine asked directly and through `rag`: when the first token comes, and how fast the rest."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from tritonrag_backends.generation.engine import Engine, Prompt, Sampling
from tritonrag_client import AsyncRagClient
from tritonrag_client.errors import InternalError
from tritonrag_perf.served_prompts import ServedPrompts

FENCE_KEY: Final = "gpu"  # the same fences on both sides, so the same prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One answer. Milliseconds from the question to the first text, seconds to its end."""

    text: str
    first_token_ms: float
    took_s: float
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with the prompt that `rag` makes of it."""

    question: str
    prompt: Prompt
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Several answers at once, and how long all of them took."""

    written: tuple[Written, ...]
    took_s: float


class Sides:
    """Holds both; the client asks `rag`. Every answer has exactly `max_tokens` tokens: the model never ends by itself."""

    def __init__(self, client: AsyncRagClient, engine: Engine, *, max_tokens: int) -> None:
        self._client, self._engine, self._sampling = client, engine, Sampling(max_tokens=max_tokens)
        self._prompts = ServedPrompts(engine, fence_key=FENCE_KEY, max_tokens=max_tokens)

    async def prepare(self, question: str) -> Asked:
        """Find the passages and build the prompt as the server does."""
        found = (await self._client.search([question]))[0]
        prompt, tokens = self._prompts.prompt(question, found)
        return Asked(question=question, prompt=prompt, prompt_tokens=tokens)

    async def retrieve_ms(self, question: str) -> float:
        """What `retrieve` takes alone."""
        began_s = time.perf_counter()
        await self._client.search(question)
        return 1e3 * (time.perf_counter() - began_s)

    async def by_engine(self, asked: Asked) -> Written:
        """Without the server."""
        watch = _Watch()
        async with aclosing(self._engine.generate(asked.prompt, self._sampling)) as deltas:
            async for delta in deltas:
                watch.take(delta.text, delta.finish_reason or "")
        return watch.done()

    async def by_rag(self, asked: Asked) -> Written:
        """Through Triton: embedding, search, prompt, engine. Raises InternalError where something was given up."""
        watch = _Watch()
        async with self._client.stream(asked.question, max_tokens=self._sampling.max_tokens) as deltas:
            async for delta in deltas:
                if delta.degraded:
                    raise InternalError(f"the answer is degraded: {delta.degraded}")
                watch.take(delta.text, delta.finish_reason)
        return watch.done()


async def burst(side: Callable[[Asked], Awaitable[Written]], asked: list[Asked]) -> Burst:
    """All of them at once."""
    began_s = time.perf_counter()
    written = await asyncio.gather(*map(side, asked))
    return Burst(written=tuple(written), took_s=time.perf_counter() - began_s)


class _Watch:
    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self._first_s: float | None = None
        self._parts: list[str] = []
        self._finish_reason = ""

    def take(self, text: str, finish_reason: str) -> None:
        if text and self._first_s is None:
            self._first_s = time.perf_counter() - self._began_s
        self._parts.append(text)
        self._finish_reason = finish_reason or self._finish_reason

    def done(self) -> Written:
        if self._first_s is None:
            raise InternalError("the engine wrote nothing")
        return Written(
            text="".join(self._parts),
            first_token_ms=1e3 * self._first_s,
            took_s=time.perf_counter() - self._began_s,
            finish_reason=self._finish_reason,
        )
