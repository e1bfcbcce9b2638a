"""Triton model `generator`: a question and its passages to a streamed, cited answer; one event loop for all requests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager

import triton_python_backend_utils as pb_utils

from tritonrag_backends.generation.answering import Answering, AnswerJob
from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.opening import open_answering
from tritonrag_backends.generation.peers import Peers, stop_everywhere
from tritonrag_backends.generation.relay import CANCELLED, relay, unless_unwanted
from tritonrag_backends.generation.running import Generation, RunningGenerations
from tritonrag_backends.generation.sources import parse_passages, splice_sources, without_padding
from tritonrag_backends.generation.trail import AnswerTrail
from tritonrag_backends.models.calls import embed, retrieve
from tritonrag_backends.models.edge import error_response, strings_tensor
from tritonrag_backends.models.generator_metrics import GeneratorMetrics
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.loops import run_in
from tritonrag_backends.models.questions import Question, Retrieved, is_stop, read_question, read_tenant
from tritonrag_backends.models.sender import Sender
from tritonrag_backends.models.turn import wait_for_turn
from tritonrag_backends.run_dir import run_dir
from tritonrag_backends.settings import load_settings
from tritonrag_client.contract import DEGRADED, FINISH_REASON, GENERATOR, SOURCES, TEXT_OUTPUT
from tritonrag_client.errors import DeadlineError, OverloadedError

# A BLS call holds a thread while it waits; asyncio's default pool has only cores + 4 of them.
_CALL_THREADS = 64
_CLOSE_TIMEOUT_S = 10
_NO_SOURCES = b"[]"


class TritonPythonModel:
    """The question and options of config.pbtxt to `text_output`, `sources`, `finish_reason`, `degraded`, STRING [1] each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine that the settings name; a language model is loaded when this returns."""
        self._settings = load_settings()
        instance = int(args["model_instance_name"].rsplit("_", 1)[-1])
        wait_for_turn(self._settings)
        self._answering: Answering = open_answering(self._settings, embed, instance=instance)
        self._running = RunningGenerations()
        self._metrics = GeneratorMetrics(
            self._settings.generator.engine,
            instance_name(args),
            lambda: self._answering.load,
            lambda: self._answering.store_counts,
        )
        self._threads = ThreadPoolExecutor(_CALL_THREADS, thread_name_prefix="bls")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._peers: Peers | None = None

    async def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Serve each request by itself; Triton goes on to the next batch meanwhile."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.set_default_executor(self._threads)
            self._peers = _open_peers(self._running)
        await asyncio.gather(*(self._serve(request) for request in requests))

    def finalize(self) -> None:
        """Free the engine and the threads, and be asked no more."""
        if self._peers is not None:
            self._peers.close()
        if self._loop is None:
            asyncio.run(self._answering.close())
        else:
            run_in(self._loop, self._answering.close(), _CLOSE_TIMEOUT_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, request: pb_utils.InferenceRequest) -> None:
        """Send the answer's deltas, or the error; whatever happens, Triton is told of the end."""
        sender = Sender(request.get_response_sender())
        trail = AnswerTrail(engine=self._settings.generator.engine)
        try:
            if is_stop(request):
                await self._stop(request, sender)
                return
            if len(self._running) >= self._settings.limits.answers:
                self._refuse(sender)
                return
            async with aclosing(self._answers(request, sender, trail)) as answers:
                async for delta, sources in answers:
                    if delta.text:
                        trail.text_passed()
                    if delta.finish_reason is not None:
                        trail.ended(delta.finish_reason)
                    sender.send(_response(delta, sources), last=delta.finish_reason is not None)
            self._metrics.ended(trail)
        except Exception as error:  # noqa: BLE001 - the model's edge
            trail.ended("error")
            self._metrics.ended(trail)
            sender.send(error_response(error, GENERATOR), last=True)
        finally:
            sender.close()

    def _refuse(self, sender: Sender) -> None:
        """Before anything of the request is read: it must cost little."""
        self._metrics.refused()
        error = OverloadedError(
            f"{len(self._running)} answers are being written, as many as may be at a time; try again in a moment, add servers, or"
            " raise TRITONRAG_LIMITS_ANSWERS"
        )
        sender.send(error_response(error, GENERATOR), last=True)

    async def _stop(self, request: pb_utils.InferenceRequest, sender: Sender) -> None:
        """End the generations that the request means, whichever instance has them, and answer it."""
        tenant = read_tenant(request, self._settings)
        await stop_everywhere(request.request_id(), tenant, self._running, self._peers)
        sender.send(_response(CANCELLED, _NO_SOURCES), last=True)

    async def _answers(
        self, request: pb_utils.InferenceRequest, sender: Sender, trail: AnswerTrail
    ) -> AsyncGenerator[tuple[Delta, bytes], None]:
        """Deltas, the first with the sources' JSON."""
        question = read_question(request, self._settings)
        deadline_s = asyncio.get_running_loop().time() + question.timeout_s
        with self._counted(request.request_id(), question.tenant) as generation:
            retrieved = question.retrieved
            if retrieved is None:
                fetching = _fetch(question, deadline_s, trail)
                retrieved = await unless_unwanted(fetching, generation, sender.is_cancelled)
            if retrieved is None:
                yield CANCELLED, _NO_SOURCES
                return
            job, sources = _job(question, retrieved)
            written = self._answering.answer(job, trail)
            deltas = relay(written, generation, sender.is_cancelled, deadline_s=deadline_s)
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


def _open_peers(running: RunningGenerations) -> Peers | None:
    """The other instances; None where they share no folder: then a `stop` reaches those generations alone that run in this one."""
    folder = run_dir()
    if folder is None:
        return None
    try:
        return Peers.open(folder, os.getpid(), running.stop)
    except OSError as error:
        pb_utils.Logger.log_error(f"{GENERATOR}: hands no stop on to its other instances: {error!r}")
        return None


async def _fetch(question: Question, deadline_s: float, trail: AnswerTrail) -> Retrieved:
    """The passages of a question that came without."""
    try:
        async with asyncio.timeout_at(deadline_s):
            retrieved = await retrieve(question, deadline_s - asyncio.get_running_loop().time())
    except TimeoutError:
        raise DeadlineError("the time for this answer was spent before its passages were there") from None
    trail.retrieved()
    return retrieved


def _job(question: Question, retrieved: Retrieved) -> tuple[AnswerJob, bytes]:
    """What is to be answered, and the sources' JSON."""
    ids, scores, passages = without_padding(retrieved.passage_ids, retrieved.scores, retrieved.passages)
    job = AnswerJob(
        question=question.text,
        passages=parse_passages(passages),
        passage_ids=tuple(ids.tolist()),
        index_version=retrieved.index_version,
        sampling=question.sampling,
        history=question.history,
        tenant=question.tenant,
        stream=question.stream,
        strict=question.strict,
        retrieval_degraded=retrieved.degraded,
    )
    return job, splice_sources(ids, scores, passages)


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
