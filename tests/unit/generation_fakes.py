"""An engine whose words are given, that can fail, hang and count; and passages to ask about."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

from tritonrag_backends.generation.engine import Capabilities, Delta, Load, Message, Prompt, Sampling, Usage
from tritonrag_client.contract import Passage

CAPABILITIES = Capabilities(
    engine="scripted", model="script", fingerprint="f" * 64, context_tokens=1000, reads_messages=True, seeds=True
)


def passage(text: str, title: str = "Title") -> Passage:
    return Passage(text=text, title=title, uri=f"file:{title}", start=0, end=len(text))


@dataclass
class ScriptedEngine:
    """Writes `texts`, one a delta; `failure` is raised after `fails_after` of them; `hangs` waits before the end."""

    texts: Sequence[str] = ("a ", "b")
    failure: Exception | None = None
    fails_after: int = 0
    hangs: bool = False
    degraded: str = ""
    capabilities: Capabilities = CAPABILITIES
    prompts: list[Prompt] = field(default_factory=list)
    running: int = 0
    closed: bool = False

    @property
    def load(self) -> Load:
        return Load(running=self.running, waiting=0)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) + 4 for message in messages)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        self.prompts.append(prompt)
        self.running += 1
        try:
            for position, text in enumerate(self.texts[: sampling.max_tokens]):
                if self.failure is not None and position == self.fails_after:
                    raise self.failure
                await asyncio.sleep(0)
                yield Delta(text=text, degraded=self.degraded if position == 0 else "")
            if self.failure is not None:
                raise self.failure
            if self.hangs:
                await asyncio.Event().wait()
            yield Delta(text="", finish_reason="stop", usage=Usage(prompt_tokens=9, completion_tokens=len(self.texts)))
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.closed = True


def quoting_engine(*texts: str) -> ScriptedEngine:
    """In the extractive engine's place."""
    capabilities = replace(CAPABILITIES, engine="extractive", reads_messages=False, context_tokens=None)
    return ScriptedEngine(texts=texts or ("quoted [1]",), capabilities=capabilities)
