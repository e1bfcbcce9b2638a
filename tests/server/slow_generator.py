"""The real generator model with an engine that takes its time: the stand-in for a long generation, at the Engine protocol.

Copied as `generator/1/model.py` into the repository of tests/server/test_cancel.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from tritonrag_backends.generation.answer_cache import AnswerCache
from tritonrag_backends.generation.answering import Answering
from tritonrag_backends.generation.engine import Capabilities, Delta, Load, Message, Prompt, Sampling
from tritonrag_backends.models import generator

PACE_S = 0.01


class SlowEngine:
    """Writes `max_tokens` words, one every PACE_S."""

    capabilities = Capabilities(
        engine="slow", model="none", fingerprint="slow", context_tokens=None, reads_messages=False, seeds=True
    )
    load = Load(running=0, waiting=0)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(messages)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:  # noqa: ARG002
        for number in range(1, sampling.max_tokens + 1):
            await asyncio.sleep(PACE_S)
            yield Delta(text=f"w{number} ", finish_reason="length" if number == sampling.max_tokens else None)

    async def close(self) -> None:
        pass


class TritonPythonModel(generator.TritonPythonModel):
    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        slow, prompts = SlowEngine(), self._answering._prompts
        self._answering = Answering(slow, extractive=slow, prompts=prompts, cache=AnswerCache(None))
