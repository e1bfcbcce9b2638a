"""The LLM API: LLM, SamplingParams, RequestError."""

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any, Self

from tensorrt_llm.executor import LoRARequest
from tensorrt_llm.llmapi.llm_args import LlmArgs
from tensorrt_llm.script import SCRIPT


class RequestError(RuntimeError):
    """A request failed."""


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    max_tokens: int = 32
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    return_perf_metrics: bool = False
    exclude_input_from_output: bool = True


@dataclass
class CompletionOutput:
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None


class RequestOutput:
    """Async-iterable, yields itself after each token; the text is cumulative."""

    def __init__(self, max_tokens: int) -> None:
        self.outputs = [CompletionOutput()]
        self.finished = False
        self.cached_tokens = 3
        self._left = list(SCRIPT.texts[:max_tokens])
        self._cut = len(SCRIPT.texts) > max_tokens
        self._aborted = asyncio.Event()
        SCRIPT.running += 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Self:
        if self.finished:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        if SCRIPT.fails_request:
            self._end()
            raise RequestError("one bad request")
        if SCRIPT.dead:
            self._end()
            raise RuntimeError("the executor is gone")
        if SCRIPT.hangs and not self._left:
            await self._aborted.wait()
            self._end()
            raise StopAsyncIteration
        output = self.outputs[0]
        if self._left:
            output.text = output.text.rstrip("\ufffd") + self._left.pop(0)
            output.token_ids.append(len(output.token_ids))
        if not self._left and not SCRIPT.hangs:
            output.finish_reason = "length" if self._cut else SCRIPT.reason
            self._end()
        return self

    def abort(self) -> None:
        SCRIPT.aborted += 1
        self._aborted.set()
        self._end()

    def _end(self) -> None:
        if not self.finished:
            self.finished = True
            SCRIPT.running -= 1


class LLM:
    def __init__(self, **arguments: Any) -> None:
        if SCRIPT.refuses_model:
            raise ValueError("unsupported architecture in /secret/path")
        SCRIPT.llm_arguments = arguments
        SCRIPT.visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.args = LlmArgs(**arguments)
        self.tokenizer = SCRIPT.tokenizer

    def generate_async(
        self,
        inputs: list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: None = None,
        streaming: bool = False,
        kv_cache_retention_config: None = None,
        disaggregated_params: None = None,
        trace_headers: None = None,
        _postproc_params: None = None,
        scheduling_params: None = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        assert sampling_params is not None
        assert streaming
        if SCRIPT.dead:
            raise RuntimeError("the executor is gone")
        SCRIPT.requests.append(
            {"inputs": inputs, "sampling": sampling_params, "lora": lora_request, "cache_salt": cache_salt}
        )
        return RequestOutput(sampling_params.max_tokens)

    def shutdown(self) -> None:
        SCRIPT.shut_down += 1
