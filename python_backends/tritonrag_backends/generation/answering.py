"""From a question and its passages to the answer's deltas.

    prompt ─▶ known already, or in the making? ─▶ engine ─▶ citations ─▶ fallback
    (prompting)   (answer_cache, in_flight)                             (extractive)

Whatever one stage gave up stands in `degraded` of the first delta, behind what retrieval gave up, and in the answer's trail.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from tritonrag_backends.generation.answer_cache import AnswerCache
from tritonrag_backends.generation.answer_key import answer_key
from tritonrag_backends.generation.engine import Delta, Engine, Load, Prompt, Sampling, require_able
from tritonrag_backends.generation.fallback import Patience, with_fallback, without_stalls
from tritonrag_backends.generation.trail import AnswerTrail
from tritonrag_backends.prompting.builder import BuiltPrompt, PromptBuilder
from tritonrag_backends.prompting.citations import Citations
from tritonrag_client.contract import Passage, Turn
from tritonrag_client.errors import BadRequestError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """One answer to be written. `passages` are in rank order, with their ids; `index_version` None: not known.

    `stream`: deltas are passed on as they come, so that after the first nothing can be taken back. `strict`: rather an error than
    an answer in which something was given up. `retrieval_degraded`, what retrieval gave up, does not count there: its passages are
    as good, only later; and a known answer does not bear it, since it is put before what is known or written.
    """

    question: str
    passages: tuple[Passage, ...]
    passage_ids: tuple[int, ...]
    index_version: int | None
    sampling: Sampling
    history: tuple[Turn, ...] = ()
    tenant: str | None = None
    stream: bool = False
    strict: bool = False
    retrieval_degraded: str = ""


_ENDLESS: Final = Patience()


class Answering:
    """Holds what all answers share: the engine, the fallback, the prompts, the cache. Lives in one event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        extractive: Engine,
        prompts: PromptBuilder,
        cache: AnswerCache,
        patience: Patience = _ENDLESS,
    ) -> None:
        """An engine that writes nothing for longer than `patience` has failed."""
        self._patience = patience
        self._engine, self._extractive, self._prompts, self._cache = engine, extractive, prompts, cache
        self._prompt_fingerprint = prompts.fingerprint if engine.capabilities.reads_messages else ""

    async def answer(self, job: AnswerJob, trail: AnswerTrail) -> AsyncGenerator[Delta, None]:
        """The answer's deltas, the last with a finish_reason. Closing it closes whatever works on it.

        Raises BadRequestError for what the engine or the prompt can't take; with `strict` also what made the engine fail.
        """
        require_able(self._engine.capabilities, job.sampling)
        prompt = Prompt(question=job.question, passages=job.passages, history=job.history, tenant=job.tenant)
        built = self._build(job, trail) if self._engine.capabilities.reads_messages else None
        left_out = _left_out(built)
        if left_out and job.strict:
            raise BadRequestError(f"{left_out}; strict asks for an error instead")
        note = _joined(job.retrieval_degraded, left_out)
        deltas = self._known_or_written(job, prompt, built, trail)
        if self._engine is not self._extractive:
            deltas = self._or_quoted(deltas, job, prompt, trail)
        async with aclosing(deltas):
            async for delta in deltas:
                noted = replace(delta, degraded=_joined(note, delta.degraded)) if note else delta
                note = ""
                trail.degraded |= bool(noted.degraded)
                if delta.degraded and job.strict:
                    raise UnavailableError(f"{delta.degraded}; strict asks for an error instead")
                if noted.usage is not None:
                    trail.usage = noted.usage
                yield noted

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        return self._engine.load

    @property
    def store_counts(self) -> Mapping[str, int]:
        """What happened in the store of known answers so far."""
        return self._cache.counts

    async def close(self) -> None:
        """Free the engine, the fallback and the cache."""
        await self._engine.close()
        await self._extractive.close()
        await self._cache.close()

    def _build(self, job: AnswerJob, trail: AnswerTrail) -> BuiltPrompt:
        built = self._prompts.build(
            question=job.question,
            passages=job.passages,
            passage_ids=job.passage_ids,
            history=job.history,
            max_tokens=job.sampling.max_tokens,
        )
        trail.passages_used, trail.passages_left_out = len(built.labels), built.left_out
        return built

    async def _known_or_written(
        self, job: AnswerJob, prompt: Prompt, built: BuiltPrompt | None, trail: AnswerTrail
    ) -> AsyncGenerator[Delta, None]:
        key = self._key(job) if job.sampling.deterministic else None
        known = self._cache.answers(key, lambda: self._written(prompt, job.sampling, built, trail))
        async with aclosing(known):
            async for delta in known:
                trail.cache = known.outcome
                yield delta

    async def _written(
        self, prompt: Prompt, sampling: Sampling, built: BuiltPrompt | None, trail: AnswerTrail
    ) -> AsyncGenerator[Delta, None]:
        """What the engine writes, its citations turned into sources' numbers."""
        if built is None:
            async with aclosing(self._generate(prompt, sampling)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        citations = Citations(built.labels)
        try:
            async with aclosing(self._generate(replace(prompt, messages=built.messages), sampling)) as deltas:
                async for delta in deltas:
                    text = citations.push(delta.text) + (citations.flush() if delta.finish_reason else "")
                    if text or delta.finish_reason or delta.degraded:
                        yield replace(delta, text=text)
        finally:
            trail.citations_kept, trail.citations_removed = citations.kept, citations.removed

    def _generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        deltas = self._engine.generate(prompt, sampling)
        return without_stalls(deltas, self._patience, engine=self._engine.capabilities.engine)

    def _or_quoted(
        self, deltas: AsyncGenerator[Delta, None], job: AnswerJob, prompt: Prompt, trail: AnswerTrail
    ) -> AsyncGenerator[Delta, None]:
        sampling = replace(job.sampling, lora_name=None)
        return with_fallback(
            deltas,
            lambda: self._extractive.generate(prompt, sampling),
            engine=self._engine.capabilities.engine,
            stream=job.stream,
            strict=job.strict,
            on_failure=trail.failed,
        )

    def _key(self, job: AnswerJob) -> str:
        return answer_key(
            question=job.question,
            history=job.history,
            tenant=job.tenant,
            index_version=job.index_version,
            passages=job.passages,
            passage_ids=job.passage_ids,
            prompt_fingerprint=self._prompt_fingerprint,
            engine_fingerprint=self._engine.capabilities.fingerprint,
            sampling=job.sampling,
        )


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _left_out(built: BuiltPrompt | None) -> str:
    """What of the passages and of the conversation had no room in the prompt; "" where all of it had."""
    if built is None:
        return ""
    parts = []
    if built.left_out:
        all_of_them = built.left_out + len(built.labels)
        parts.append(
            f"{built.left_out} of {all_of_them} passages had no room in the prompt; ask for fewer num_passages"
        )
    if built.history_left_out:
        parts.append(f"{built.history_left_out} turns of the history had no room in the prompt")
    return _joined(*parts)
