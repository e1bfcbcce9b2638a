"""The `onnxruntime_genai` engine: prompts out to the worker process, tokens back, text on.

Prompts are tokenised and tokens put into words here; the worker (see `worker`) knows token ids alone. When it dies, what ran
there ends with UnavailableError, and it is started again.
"""

import itertools
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Final

from tritonrag_backends.generation.detokenizer import Detokenizer
from tritonrag_backends.generation.engine import (
    Capabilities,
    Delta,
    Load,
    Message,
    Prompt,
    Sampling,
    Usage,
    require_able,
)
from tritonrag_backends.generation.genai.devices import worker_environment
from tritonrag_backends.generation.genai.folder import ModelFolder
from tritonrag_backends.generation.genai.process import STARTER, WorkerProcess
from tritonrag_backends.generation.genai.prompts import chat_prompts, decode, read_tokenizer
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.genai.supervision import Generation, Supervisor
from tritonrag_backends.generation.genai.wire import End, Job, Ready
from tritonrag_backends.generation.stop_words import StopWords
from tritonrag_client.contract import FinishReason
from tritonrag_client.errors import ERROR_TYPES, BadRequestError, InternalError, OverloadedError

_MOST_COUNTED: Final = 16
_SEEDS: Final = 2**31  # the library's are 32 bits with a sign; the contract's have 64


def open_genai(settings: GenaiSettings, *, instance: int = 0) -> "GenaiEngine":
    """Start the worker and wait until its model is loaded; no event loop is needed yet. `instance` picks its GPU, from 0.

    Raises NotFoundError, BadRequestError or InternalError for a folder that is none or not for this execution, BadRequestError for
    devices that can't be right, UnavailableError for a library or device that is missing or a model that takes too long.
    """
    environment = worker_environment(settings, instance)
    folder = ModelFolder.read(settings.model)
    folder.require_execution(settings.execution)
    worker = STARTER.submit(WorkerProcess.start, settings, environment).result()
    try:
        ready = worker.wait_ready(settings.start_timeout_s)
        return GenaiEngine(settings, folder, Supervisor(settings, worker, environment), ready)
    except BaseException:
        worker.stop()
        raise


class GenaiEngine:
    """Implements `Engine`; made by `open_genai`."""

    def __init__(self, settings: GenaiSettings, folder: ModelFolder, supervisor: Supervisor, ready: Ready) -> None:
        self._settings, self._folder, self._slots = settings, folder, ready.slots
        tokenizer = read_tokenizer(folder.path)
        self._prompts = chat_prompts(folder.path, tokenizer)
        self._decode = partial(decode, tokenizer)
        self._supervisor = supervisor
        self._numbers = itertools.count(1)
        self._counted: dict[tuple[Message, ...], list[int]] = {}  # tokenised to be counted, and soon to be asked
        self._capabilities = Capabilities(
            engine="onnxruntime_genai",
            model=folder.name,
            fingerprint=folder.fingerprint,
            context_tokens=folder.context_tokens,
            reads_messages=True,
            seeds=True,
            lora_names=tuple(ready.adapters),
        )

    @property
    def capabilities(self) -> Capabilities:
        """The folder's, and the adapters that the worker has loaded."""
        return self._capabilities

    @property
    def load(self) -> Load:
        """What the worker runs, and what waits for a place there; those whose reader has left count until they have ended."""
        waiting = self._supervisor.waiting
        return Load(running=len(self._supervisor) - waiting, waiting=waiting, slots=self._slots)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """By the model's own tokenizer and chat template. The last few are kept for `generate`: 1,500 tokens take 1.5 ms."""
        key = tuple(messages)
        tokens = self._prompts.token_ids(key)
        if len(self._counted) == _MOST_COUNTED:
            del self._counted[next(iter(self._counted))]
        self._counted[key] = tokens
        return len(tokens)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """A delta whenever the worker has written some; tokens that came meanwhile are joined.

        Raises, before the first delta, BadRequestError for a prompt that does not fit, OverloadedError where too many wait.
        """
        job = self._job(prompt, sampling)
        if len(self._supervisor) >= self._slots + self._settings.max_waiting:
            raise OverloadedError(
                f"{self._supervisor.waiting} answers wait for the language model already; try again later,"
                " or raise TRITONRAG_GENAI_MAX_WAITING on the server"
            )
        generation = await self._supervisor.submit(job)
        try:
            async for delta in self._deltas(generation, sampling.stop_words, len(job.tokens)):
                yield delta
        finally:
            self._supervisor.leave(generation)

    async def close(self) -> None:
        """End the worker; what runs or waits there ends with UnavailableError."""
        await self._supervisor.close()

    def _job(self, prompt: Prompt, sampling: Sampling) -> Job:
        require_able(self._capabilities, sampling)
        tokens = self._counted.pop(prompt.messages, None) or self._prompts.token_ids(prompt.messages)
        if len(tokens) + sampling.max_tokens > self._folder.context_tokens:
            raise BadRequestError(
                f"the prompt has {len(tokens)} tokens and max_tokens is {sampling.max_tokens}, more than the model's context of"
                f" {self._folder.context_tokens} together; ask for fewer max_tokens, or send a shorter question or history"
            )
        if max(tokens) >= self._folder.vocab_size:
            raise InternalError(
                f"the tokenizer gives token {max(tokens)}, and the model knows {self._folder.vocab_size}: they do not belong"
                " together; export the model again"
            )
        return Job(
            id=next(self._numbers),
            tokens=tokens,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=self._folder.top_p if sampling.top_p is None else sampling.top_p,
            top_k=self._folder.top_k,
            seed=None if sampling.seed is None else sampling.seed % _SEEDS,
            adapter=sampling.lora_name,
        )

    async def _deltas(
        self, generation: Generation, stop_words: Sequence[str], prompt_tokens: int
    ) -> AsyncGenerator[Delta, None]:
        words, stop, written = Detokenizer(self._decode), StopWords(stop_words), 0
        while True:
            tokens, end = await generation.news()
            written += len(tokens)
            text = stop.push(words.push(tokens)) if tokens else ""
            if end is not None:
                text += stop.push(words.flush()) + stop.flush()
            finish_reason = "stop" if stop.found is not None else _finish_reason(end)
            usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=written) if finish_reason else None
            if text or finish_reason:
                yield Delta(text=text, finish_reason=finish_reason, usage=usage)
            if finish_reason:
                return


def _finish_reason(end: End | None) -> FinishReason | None:
    """Why it ended; None where it goes on. Raises the error with which it ended."""
    if end is None:
        return None
    if end.reason == "error":
        raise ERROR_TYPES.get(end.code, InternalError)(end.message)
    return "length" if end.reason == "length" else "stop"
