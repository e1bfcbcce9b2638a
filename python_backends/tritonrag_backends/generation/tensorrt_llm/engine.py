"""The `tensorrt_llm` engine: TensorRT-LLM's LLM API inside this process, with in-flight batching over all streams.

The library queues, batches and generates by itself, in processes of its own; here requests are bounded, prompts tokenised
and cumulative texts made deltas. It has not run on hardware yet: docs/tensorrt-llm.md.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from tritonrag_backends.generation.chat_prompts import ChatPrompts
from tritonrag_backends.generation.engine import Capabilities, Delta, Load, Message, Prompt, Sampling, require_able
from tritonrag_backends.generation.tensorrt_llm.adapters import Adapter, read_adapters
from tritonrag_backends.generation.tensorrt_llm.arguments import (
    check_settings,
    llm_arguments,
    samples_with_speculation,
)
from tritonrag_backends.generation.tensorrt_llm.chat_prompts import chat_prompts
from tritonrag_backends.generation.tensorrt_llm.checkpoint import Checkpoint
from tritonrag_backends.generation.tensorrt_llm.cumulative import CumulativeText
from tritonrag_backends.generation.tensorrt_llm.devices import gpus_of, prepare_environment
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_backends.generation.tensorrt_llm.generation import Generation
from tritonrag_backends.generation.tensorrt_llm.library import Library, load_library
from tritonrag_backends.generation.tensorrt_llm.opening import capabilities, load_model, slots
from tritonrag_backends.generation.tensorrt_llm.salts import TenantSalts
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_client.errors import (
    BadRequestError,
    DeadlineError,
    InternalError,
    OverloadedError,
    UnavailableError,
)

_LOG = logging.getLogger(__name__)


def open_tensorrt_llm(settings: TrtllmSettings, *, instance: int = 0) -> "TensorRtLlmEngine":
    """Load the model; returns when it can answer. `instance` picks its GPUs among `devices`, from 0.

    Raises BadRequestError or NotFoundError for settings, model or adapters that can't be right, UnavailableError where the
    library is missing or could not start.
    """
    checkpoint = Checkpoint.find(settings.model)
    check_settings(settings, checkpoint)
    adapters = read_adapters(settings)
    group = gpus_of(settings, instance)
    prepare_environment(group, os.environ)
    library = load_library()
    llm = load_model(library, checkpoint, llm_arguments(settings, checkpoint, adapters, library, len(group)))
    try:
        prompts = chat_prompts(llm.tokenizer)
    except BadRequestError:
        llm.shutdown()
        raise
    return TensorRtLlmEngine(
        llm=llm,
        library=library,
        prompts=prompts,
        settings=settings,
        adapters=adapters,
        eos_ids=checkpoint.eos_ids,
        capabilities=capabilities(settings, checkpoint, adapters, library, llm),
    )


class TensorRtLlmEngine:
    """Implements `Engine`."""

    def __init__(
        self,
        *,
        llm: Foreign,
        library: Library,
        prompts: ChatPrompts,
        settings: TrtllmSettings,
        adapters: Sequence[Adapter],
        eos_ids: Sequence[int],
        capabilities: Capabilities,
    ) -> None:
        self._llm = llm
        self._library = library
        self._prompts = prompts
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._eos_ids = list(eos_ids)
        self._capabilities = capabilities
        self._salts = TenantSalts(settings.salt_key.get_secret_value())
        self._slots = slots(settings, llm)
        self._max_waiting = settings.max_waiting
        self._perf_metrics = settings.perf_metrics
        self._samples = samples_with_speculation(settings, library)
        self._running: set[Generation] = set()
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """What the loaded model can do."""
        return self._capabilities

    @property
    def load(self) -> Load:
        """Counted here: the library has the waiting ones in a queue of its own."""
        total = len(self._running)
        running = total if self._slots is None else min(total, self._slots)
        return Load(running=running, waiting=total - running, slots=self._slots)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Exactly what a prompt of these messages takes."""
        return len(self._prompts.token_ids(messages))

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        self._require_able(sampling)
        ids = self._prompts.token_ids(prompt.messages)
        self._require_room(len(ids), sampling.max_tokens)
        text = CumulativeText(sampling.stop_words)
        generation = self._begin(ids, prompt.tenant, sampling)
        self._running.add(generation)
        try:
            while True:
                output = await generation.step()
                if output is None:
                    raise InternalError("the tensorrt_llm engine ended an answer without saying why; ask again")
                delta = self._delta(output, text, generation)
                if delta.text or delta.finish_reason:
                    if delta.finish_reason:
                        self._leave(generation)  # before the last delta: its receiver may let go of us
                    yield delta
                if delta.finish_reason:
                    return
        finally:
            self._leave(generation)

    async def close(self) -> None:
        """Free the GPUs; running generations end with UnavailableError."""
        if self._closed:
            return
        self._closed = True
        for generation in tuple(self._running):
            generation.end()
        await asyncio.to_thread(self._llm.shutdown)  # waits for its worker processes

    def _delta(self, output: Foreign, text: CumulativeText, generation: Generation) -> Delta:
        reason = output.finish_reason
        if reason in ("stop", "length"):
            rest = text.finish(output.text)
            return Delta(text=rest, finish_reason="stop" if text.stopped else reason, usage=generation.usage())
        if reason is not None:
            raise self._ended(reason)
        new = text.push(output.text)
        if text.stopped:
            return Delta(text=new, finish_reason="stop", usage=generation.usage())
        return Delta(text=new)

    def _ended(self, reason: str) -> Exception:
        if reason == "timeout":
            return DeadlineError("the tensorrt_llm engine's own time limit ended the answer; ask for fewer max_tokens")
        if self._closed:
            return UnavailableError("the engine is closing; ask again in a while")
        return InternalError(f"the tensorrt_llm engine ended the answer early ({reason}); ask again")

    def _leave(self, generation: Generation) -> None:
        generation.abort()
        self._running.discard(generation)

    def _begin(self, ids: list[int], tenant: str | None, sampling: Sampling) -> Generation:
        try:
            result = self._llm.generate_async(
                inputs=ids,
                sampling_params=self._sampling_params(sampling),
                lora_request=self._lora_request(sampling.lora_name),
                streaming=True,
                cache_salt=self._salts.salt(tenant),
            )
        except ValueError as error:
            _LOG.warning("tensorrt_llm refused a request: %s", error)
            raise BadRequestError(
                f"the tensorrt_llm engine refuses a prompt of {len(ids)} tokens with max_tokens {sampling.max_tokens} or its"
                " sampling; the server's log says which"
            ) from error
        except (RuntimeError, OSError, AssertionError, AttributeError) as error:  # its workers are gone
            _LOG.exception("tensorrt_llm takes no requests")
            raise UnavailableError("the tensorrt_llm engine takes no requests; the server's log says why") from error
        return Generation(result, len(ids), self._library.request_error)

    def _sampling_params(self, sampling: Sampling) -> Foreign:
        arguments: dict[str, Any] = {"max_tokens": sampling.max_tokens}
        if sampling.temperature == 0:
            arguments["top_k"] = 1  # what every release takes for greedy; a temperature of 0 is that since 1.2 alone
        else:
            # Without top_p releases before 1.2 are greedy whatever the temperature.
            arguments |= {
                "temperature": sampling.temperature,
                "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            }
        if sampling.seed is not None:
            arguments["seed"] = sampling.seed
        if sampling.stop_words:
            # Kept in the text: the library cuts by tokens and can leave half a word behind; CumulativeText cuts exactly.
            arguments |= {"stop": list(sampling.stop_words), "include_stop_str_in_output": True}
        if self._eos_ids:
            arguments["stop_token_ids"] = self._eos_ids  # by itself it knows the tokenizer's one alone
        if self._perf_metrics:
            arguments["return_perf_metrics"] = True
        return self._library.sampling_params(**arguments)

    def _lora_request(self, name: str | None) -> Foreign:
        if name is None:
            return None
        adapter = self._adapters[name]
        return self._library.lora_request(
            lora_name=adapter.name, lora_int_id=adapter.number, lora_path=str(adapter.folder)
        )

    def _require_able(self, sampling: Sampling) -> None:
        require_able(self._capabilities, sampling)
        if sampling.temperature > 0 and not self._samples:
            raise BadRequestError(
                f"temperature is {sampling.temperature}, and this release's speculative decoding takes the likeliest token"
                " always; ask for 0"
            )

    def _require_room(self, prompt_tokens: int, max_tokens: int) -> None:
        context = self._capabilities.context_tokens
        if context is not None and prompt_tokens + max_tokens > context:
            raise BadRequestError(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together more than the model's"
                f" {context}; ask for fewer"
            )
        if self._closed:
            raise UnavailableError("the engine is closing; ask again in a while")
        if self._slots is not None and len(self._running) >= self._slots + self._max_waiting:
            raise OverloadedError(
                f"{self._slots} generations run and {self._max_waiting} wait, which is all that may; ask again in a while"
            )
