"""Lanes and singles over the library's engines and generators; only the worker imports this."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime_genai as og

from tritonrag_backends.generation.genai.scheduling import Token
from tritonrag_backends.generation.genai.wire import End, Job

_LOG = logging.getLogger(__name__)
Foreign = Any  # an object of the library's, which ships no types
_EVENTS: Final = 64
_CHUNK_TOKENS: Final = 256  # of a prompt that runs alone, between two steps of the others
_REASONS: Final = {
    "EOS": "stop",
    "STOP_STRING": "stop",
    "MAX_GENERATED_TOKENS": "length",
    "MAX_SESSION_TOKENS": "length",
    "CANCELLED": "cancelled",
    "FAILED": "error",
}


@dataclass(slots=True)
class _Turn:
    job: Job
    request: Foreign
    number: int


class EngineLane:
    """Implements `Lane` over one Engine of the library.

    A static batch takes requests only while it is empty, and has no random numbers of a request's own. An Engine that failed
    is no longer healthy: another one takes its place, over the same weights.
    """

    def __init__(self, model: Foreign, *, places: int, static: bool) -> None:
        self._model, self._places, self._static = model, places, static
        self._turns: list[_Turn] = []
        self._open()

    @property
    def free(self) -> int:
        """Places; a static batch that runs has none."""
        if self._static and self._running:
            return 0
        return self._places - len(self._turns)

    @property
    def busy(self) -> bool:
        """Whether a turn runs here or the library has something left to clear."""
        return bool(self._turns) or self._engine.has_pending_requests()

    def takes(self, job: Job) -> bool:
        """All but LoRA adapters, for which the library's Engine has no call, and a seed where the batch is static."""
        return job.adapter is None and not (self._static and job.sampled and job.seed is not None)

    def start(self, job: Job) -> None:
        """Begin its turn. The cache is sized for what the job may come to: with the model's whole context four took 750 MB more."""
        try:
            session = og.RequestOptions()
            session.set_max_session_tokens(len(job.tokens) + job.max_tokens)
            request = self._engine.create_request(options=session)
            number = request.begin_turn(np.array(job.tokens, np.int32), self._options(request, job))
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        self._turns.append(_Turn(job, request, number))

    def cancel(self, job_id: int) -> bool:
        """Ask the library; its event brings the End."""
        for turn in self._turns:
            if turn.job.id == job_id:
                turn.request.cancel_turn(turn.number)
                return True
        return False

    def run(self) -> Iterator[Token | End]:
        """One run of the library's Engine."""
        self._running = True
        try:
            events = [
                (event.request, event.token, event.finish_reason.name) for event in self._engine.run(self._events)
            ]
        except RuntimeError as error:
            yield from self._fail(error)
            return
        for request, token, reason in events:
            turn = next((turn for turn in self._turns if turn.request is request), None)
            if turn is None:
                continue
            if token is not None:
                yield turn.job.id, token
            if reason != "NONE":
                yield self._end(turn, reason)
        if not self._turns and not self._engine.has_pending_requests():
            self._running = False
            if self._broken:
                self._open()

    def _open(self) -> None:
        self._engine = og.Engine(self._model)
        self._events = self._engine.create_event_buffer(_EVENTS)
        self._running = self._broken = False

    def _options(self, request: Foreign, job: Job) -> Foreign:
        options = og.TurnOptions(request)
        options.set_max_generated_tokens(job.max_tokens)
        options.set_do_sample(job.sampled)
        if job.sampled:
            options.set_temperature(job.temperature)
            options.set_top_p(job.top_p)
            options.set_top_k(job.top_k)
            if job.seed is not None:
                options.set_seed(job.seed)
        return options

    def _end(self, turn: _Turn, reason: str) -> End:
        self._turns.remove(turn)
        turn.request.close()
        if reason == "FAILED":
            self._broken = True
            return _failed(turn.job)
        return End(turn.job.id, _REASONS[reason])

    def _fail(self, error: RuntimeError) -> Iterator[End]:
        _LOG.error("the library's engine failed with %d generations: %s", len(self._turns), error)
        turns, self._turns = self._turns, []
        self._open()
        for turn in turns:
            yield _failed(turn.job)


class SingleRun:
    """Implements `Single` over one Generator of the library: a prompt in chunks, then token by token."""

    def __init__(self, model: Foreign, adapters: Foreign, job: Job, eos_ids: Sequence[int]) -> None:
        self._job, self._eos_ids = job, frozenset(eos_ids)
        self._prompt = np.array(job.tokens, np.int32)
        self._appended = self._written = 0
        try:
            params = og.GeneratorParams(model)
            params.set_search_options(**_search_options(job))
            self._generator = og.Generator(model, params)
            if job.adapter is not None:
                self._generator.set_active_adapter(adapters, job.adapter)
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    def run(self) -> Iterator[Token | End]:
        """The next chunk of the prompt, or the next token."""
        try:
            yield from self._run()
        except RuntimeError as error:
            _LOG.error("a generation that ran alone failed: %s", error)
            yield _failed(self._job)

    def _run(self) -> Iterator[Token | End]:
        if self._appended < len(self._prompt):
            self._generator.append_tokens(self._prompt[self._appended : self._appended + _CHUNK_TOKENS])
            self._appended += _CHUNK_TOKENS
            return
        self._generator.generate_next_token()
        token = int(self._generator.get_next_tokens()[0])
        if token in self._eos_ids:
            yield End(self._job.id, "stop")
            return
        self._written += 1
        yield self._job.id, token
        if self._written == self._job.max_tokens:
            yield End(self._job.id, "length")


def load_model(folder: str, *, execution: str, threads: int, static_batch: int | None) -> Foreign:
    """The library's Model. `static_batch`: generations of one batch, for a model that can't batch by itself."""
    config = og.Config(folder)
    if execution == "cuda":
        config.clear_providers()
        config.append_provider("cuda")
    if static_batch is not None:
        config.overlay(json.dumps({"engine": {"static_batching": {"max_batch_size": static_batch}}}))
    if threads:
        session = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    return og.Model(config)


def _search_options(job: Job) -> dict[str, Any]:
    options: dict[str, Any] = {"max_length": len(job.tokens) + job.max_tokens, "do_sample": job.sampled}
    if job.sampled:
        options |= {"temperature": job.temperature, "top_p": job.top_p, "top_k": job.top_k}
        if job.seed is not None:
            options["random_seed"] = job.seed
    return options


def _failed(job: Job) -> End:
    return End(job.id, "error", "internal", "the language model failed while it wrote; the server's log says why")
