"""Triton model `generator`: a question and its passages to a streamed, cited answer; one event loop for all requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager

import triton_python_backend_utils as pb_utils

from tritonrag_backends.generation.engine import Delta, Prompt
from tritonrag_backends.generation.extractive import ExtractiveEngine
from tritonrag_backends.generation.relay import relay
from tritonrag_backends.generation.running import Generation, RunningGenerations
from tritonrag_backends.generation.sources import parse_passages, splice_sources, without_padding
from tritonrag_backends.models.calls import embed, retrieve
from tritonrag_backends.models.edge import error_response, strings_tensor
from tritonrag_backends.models.metrics import GeneratorMetrics
from tritonrag_backends.models.questions import Question, is_stop, read_question, read_tenant
from tritonrag_backends.models.sender import Sender
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import DEGRADED, FINISH_REASON, GENERATOR, SOURCES, TEXT_OUTPUT

# A BLS call holds a thread while it waits; asyncio's default pool has only cores + 4 of them.
_CALL_THREADS = 64


class TritonPythonModel:
    """The question and options of config.pbtxt to `text_output`, `sources`, `finish_reason`, `degraded`, STRING [1] each."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 - Triton's signature
        """Start the engine that the settings name."""
        self._settings = load_settings()
        self._engine = ExtractiveEngine(embed)
        self._running = RunningGenerations()
        self._metrics = GeneratorMetrics()
        self._threads = ThreadPoolExecutor(_CALL_THREADS, thread_name_prefix="bls")

    async def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Serve each request by itself; Triton goes on to the next batch meanwhile."""
        asyncio.get_running_loop().set_default_executor(self._threads)
        await asyncio.gather(*(self._serve(request) for request in requests))

    def finalize(self) -> None:
        """Free the engine's threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, request: pb_utils.InferenceRequest) -> None:
        """Send the answer's deltas, or the error; whatever happens, Triton is told of the end."""
        sender = Sender(request.get_response_sender())
        try:
            if is_stop(request):
                self._running.stop(request.request_id(), read_tenant(request, self._settings))
                sender.send(_response(Delta(text="", finish_reason="cancelled"), b"[]"), last=True)
                return
            async with aclosing(self._answers(request, sender.is_cancelled)) as answers:
                async for delta, sources in answers:
                    sender.send(_response(delta, sources), last=delta.finish_reason is not None)
                    self._metrics.sent(delta)
        except Exception as error:  # noqa: BLE001 - the model's edge
            self._metrics.failed()
            sender.send(error_response(error, GENERATOR), last=True)
        finally:
            sender.close()

    async def _answers(
        self, request: pb_utils.InferenceRequest, is_cancelled: Callable[[], bool]
    ) -> AsyncGenerator[tuple[Delta, bytes], None]:
        """Deltas, the first with the sources' JSON."""
        question = read_question(request, self._settings)
        with self._counted(request.request_id(), question.tenant) as generation:
            prompt, sources = await _prompt(question)
            deltas = relay(self._engine.generate(prompt, question.sampling), generation, is_cancelled)
            async with aclosing(deltas if question.stream else _joined(deltas)) as wanted:
                async for delta in wanted:
                    yield delta, sources
                    sources = b""

    @contextmanager
    def _counted(self, request_id: str, tenant: str | None) -> Iterator[Generation]:
        try:
            with self._running.running(request_id, tenant) as generation:
                self._metrics.running(len(self._running))
                yield generation
        finally:
            self._metrics.running(len(self._running))


async def _prompt(question: Question) -> tuple[Prompt, bytes]:
    """The engine's prompt and the sources' JSON, from the passages that came along or are fetched now."""
    retrieved = question.retrieved or await retrieve(question)
    ids, scores, passages = without_padding(retrieved.passage_ids, retrieved.scores, retrieved.passages)
    return Prompt(question=question.text, passages=parse_passages(passages)), splice_sources(ids, scores, passages)


async def _joined(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """All deltas as one."""
    async with aclosing(deltas):
        parts = [delta async for delta in deltas]
    degraded = "; ".join(part.degraded for part in parts if part.degraded)
    yield Delta(text="".join(part.text for part in parts), finish_reason=parts[-1].finish_reason, degraded=degraded)


def _response(delta: Delta, sources: bytes) -> pb_utils.InferenceResponse:
    elements = {
        TEXT_OUTPUT: delta.text.encode(),
        SOURCES: sources,
        FINISH_REASON: (delta.finish_reason or "").encode(),
        DEGRADED: delta.degraded.encode(),
    }
    return pb_utils.InferenceResponse([strings_tensor(name, [value], (1,)) for name, value in elements.items()])
