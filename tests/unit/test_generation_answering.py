"""Prompt, cache, engine, citations and fallback put together give one answer, and say what was given up."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from generation_fakes import CAPABILITIES, ScriptedEngine, passage, quoting_engine

from tritonrag_backends.generation.answer_cache import AnswerCache
from tritonrag_backends.generation.answering import Answering, AnswerJob
from tritonrag_backends.generation.engine import Delta, Sampling
from tritonrag_backends.generation.fallback import Patience
from tritonrag_backends.generation.memory_store import MemoryStore
from tritonrag_backends.generation.trail import AnswerTrail
from tritonrag_backends.prompting.builder import PromptBuilder
from tritonrag_backends.prompting.template import PromptTemplate
from tritonrag_client.contract import Turn
from tritonrag_client.errors import BadRequestError, RagError, UnavailableError

JOB = AnswerJob(
    question="What is it?",
    passages=(passage("Second by id.", "B"), passage("First by id.", "A")),
    passage_ids=(20, 10),
    index_version=3,
    sampling=Sampling(max_tokens=50),
)
Answer = Callable[..., Answering]


def answering(engine: ScriptedEngine, *, cached: bool = False, quoting: ScriptedEngine | None = None) -> Answering:
    prompts = PromptBuilder(
        PromptTemplate.load("default"),
        count_tokens=engine.count_tokens,
        context_tokens=engine.capabilities.context_tokens,
        order="canonical",
        fence_key=b"key",
    )
    store = MemoryStore(max_bytes=10_000, ttl_s=60) if cached else None
    return Answering(
        engine,
        extractive=quoting or quoting_engine(),
        prompts=prompts,
        cache=AnswerCache(store),
    )


async def ask(answers: Answering, job: AnswerJob = JOB) -> tuple[list[Delta], AnswerTrail]:
    trail = AnswerTrail(engine="scripted")
    return [delta async for delta in answers.answer(job, trail)], trail


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_the_engine_gets_messages_with_the_passages_in_canonical_order() -> None:
    engine = ScriptedEngine()
    deltas, trail = await ask(answering(engine), replace(JOB, history=(Turn(role="user", content="Before?"),)))
    (prompt,) = engine.prompts
    whole = "\n".join(message.content for message in prompt.messages)
    assert (
        whole.index("First by id.") < whole.index("Second by id.") < whole.index("Before?") < whole.index("What is it?")
    )
    assert text_of(deltas) == "a b"
    assert deltas[-1].finish_reason == "stop"
    assert (trail.passages_used, trail.passages_left_out) == (2, 0)


async def test_citations_come_out_as_the_sources_numbers_and_false_ones_are_removed_and_counted() -> None:
    engine = ScriptedEngine(texts=["The first [1]", " and the second [2", "] and none [7]."])
    deltas, trail = await ask(answering(engine))
    assert text_of(deltas) == "The first [2] and the second [1] and none."
    assert (trail.citations_kept, trail.citations_removed) == (2, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_before_its_first_text_yields_a_quoted_answer(stream: bool) -> None:
    engine = ScriptedEngine(failure=UnavailableError("gone"))
    deltas, trail = await ask(answering(engine), replace(JOB, stream=stream))
    assert text_of(deltas) == "quoted [1]"
    assert "unavailable" in deltas[0].degraded
    assert (trail.failure, trail.degraded) == ("unavailable", True)


async def test_an_engine_that_writes_nothing_in_time_yields_a_quoted_answer() -> None:
    engine = ScriptedEngine(texts=(), hangs=True)
    answers = answering(engine)
    answers._patience = Patience(first_s=0.02)
    deltas, trail = await ask(answers)
    assert text_of(deltas) == "quoted [1]"
    assert trail.failure == "deadline"
    assert engine.running == 0


async def test_an_engine_that_stalls_in_mid_answer_ends_it_as_an_error() -> None:
    engine = ScriptedEngine(texts=("a ", "b "), hangs=True)
    answers = answering(engine)
    answers._patience = Patience(next_s=0.02)
    deltas, trail = await ask(answers, replace(JOB, stream=True))
    assert text_of(deltas).split() == ["a", "b"]
    assert deltas[-1].finish_reason == "error"
    assert trail.failure == "deadline"
    assert engine.running == 0


async def test_an_engine_that_stalls_where_nobody_has_read_yet_yields_a_quoted_answer() -> None:
    engine = ScriptedEngine(texts=("a ", "b "), hangs=True)
    answers = answering(engine)
    answers._patience = Patience(next_s=0.02)
    deltas, trail = await ask(answers)
    assert text_of(deltas) == "quoted [1]"
    assert trail.failure == "deadline"


async def test_half_an_answer_that_nobody_saw_is_replaced_whole() -> None:
    engine = ScriptedEngine(failure=UnavailableError("gone"), fails_after=1)
    deltas, _ = await ask(answering(engine))
    assert text_of(deltas) == "quoted [1]"


async def test_half_an_answer_that_was_passed_on_ends_as_an_error() -> None:
    engine = ScriptedEngine(failure=UnavailableError("gone"), fails_after=1)
    deltas, trail = await ask(answering(engine), replace(JOB, stream=True))
    assert text_of(deltas) == "a"  # the blank waited for what comes behind it
    assert deltas[-1].finish_reason == "error"
    assert deltas[-1].degraded
    assert trail.failure == "unavailable"


@pytest.mark.parametrize("stream", [False, True])
async def test_strict_asks_for_the_error_itself(stream: bool) -> None:
    engine = ScriptedEngine(failure=UnavailableError("gone"), fails_after=1)
    with pytest.raises(UnavailableError, match="gone"):
        await ask(answering(engine), replace(JOB, stream=stream, strict=True))


async def test_strict_refuses_what_an_engine_itself_gave_up() -> None:
    with pytest.raises(RagError, match="filtered"):
        await ask(answering(ScriptedEngine(degraded="filtered")), replace(JOB, strict=True))


async def test_a_request_that_the_engine_cant_honour_is_refused_and_not_quoted() -> None:
    with pytest.raises(BadRequestError, match="'legal'"):
        await ask(answering(ScriptedEngine()), replace(JOB, sampling=Sampling(max_tokens=5, lora_name="legal")))


async def test_passages_without_room_are_told_of_and_counted() -> None:
    long = tuple(passage("word " * 300, title) for title in "ABCDE")
    job = replace(JOB, passages=long, passage_ids=(1, 2, 3, 4, 5))
    deltas, trail = await ask(answering(ScriptedEngine()), job)
    assert trail.passages_left_out > 0
    assert f"{trail.passages_left_out} of 5 passages" in deltas[0].degraded
    assert all(not delta.degraded for delta in deltas[1:])
    with pytest.raises(BadRequestError, match="had no room"):
        await ask(answering(ScriptedEngine()), replace(job, strict=True))


async def test_a_known_answer_is_not_written_again_and_reads_the_same() -> None:
    engine = ScriptedEngine(texts=["It is [1]", " so."])
    answers = answering(engine, cached=True)
    first, trail = await ask(answers)
    again, second_trail = await ask(answers)
    assert (trail.cache, second_trail.cache) == ("miss", "hit")
    assert text_of(again) == text_of(first) == "It is [2] so."
    assert again[-1].finish_reason == "stop"
    assert len(engine.prompts) == 1


async def test_another_version_tenant_history_or_sampling_is_another_answer() -> None:
    engine = ScriptedEngine()
    answers = answering(engine, cached=True)
    others = [
        replace(JOB, index_version=4),
        replace(JOB, tenant="acme"),
        replace(JOB, history=(Turn(role="user", content="Before?"),)),
        replace(JOB, sampling=Sampling(max_tokens=49)),
    ]
    for job in (JOB, *others):
        _, trail = await ask(answers, job)
        assert trail.cache == "miss"
    assert len(engine.prompts) == 1 + len(others)


async def test_sampled_answers_are_neither_kept_nor_shared() -> None:
    engine = ScriptedEngine()
    answers = answering(engine, cached=True)
    job = replace(JOB, sampling=Sampling(max_tokens=50, temperature=0.7))
    trails = [trail for _, trail in await asyncio.gather(ask(answers, job), ask(answers, job))]
    assert [trail.cache for trail in trails] == ["off", "off"]
    assert len(engine.prompts) == 2


async def test_a_degraded_answer_is_not_kept() -> None:
    engine = ScriptedEngine(failure=UnavailableError("gone"))
    answers = answering(engine, cached=True)
    await ask(answers)
    engine.failure = None
    deltas, trail = await ask(answers)
    assert trail.cache == "miss"
    assert text_of(deltas) == "a b"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_retrieval_gave_up_comes_first_and_once_whatever_else_was_given_up(stream: bool) -> None:
    job = replace(JOB, stream=stream, retrieval_degraded="on the CPU")
    deltas, trail = await ask(answering(ScriptedEngine()), job)
    assert [delta.degraded for delta in deltas] == ["on the CPU", "", ""]
    assert trail.degraded
    deltas, _ = await ask(answering(ScriptedEngine(failure=UnavailableError("gone"))), job)
    assert deltas[0].degraded.startswith("on the CPU; the scripted engine failed (unavailable)")
    assert not any(delta.degraded for delta in deltas[1:])
    long = tuple(passage("word " * 300, title) for title in "ABCDE")
    deltas, _ = await ask(answering(ScriptedEngine()), replace(job, passages=long, passage_ids=(1, 2, 3, 4, 5)))
    assert deltas[0].degraded.startswith("on the CPU; ")
    assert "had no room" in deltas[0].degraded


async def test_strict_takes_passages_that_only_came_later() -> None:
    job = replace(JOB, strict=True, retrieval_degraded="on the CPU")
    deltas, _ = await ask(answering(ScriptedEngine()), job)
    assert (text_of(deltas), deltas[0].degraded) == ("a b", "on the CPU")
    with pytest.raises(RagError, match=r"^unavailable: filtered;"):
        await ask(answering(ScriptedEngine(degraded="filtered")), job)


async def test_a_known_answer_says_what_retrieval_gave_up_now_and_not_when_it_was_written() -> None:
    answers = answering(ScriptedEngine(), cached=True)
    told = [
        (await ask(answers, replace(JOB, retrieval_degraded=degraded)))
        for degraded in ("on the CPU", "", "too slow", "")
    ]
    assert [trail.cache for _, trail in told] == ["miss", "hit", "hit", "hit"]
    assert [deltas[0].degraded for deltas, _ in told] == ["on the CPU", "", "too slow", ""]
    assert {text_of(deltas) for deltas, _ in told} == {"a b"}


async def test_leaving_closes_what_works_on_the_answer() -> None:
    engine = ScriptedEngine(hangs=True)
    deltas = answering(engine).answer(replace(JOB, stream=True), AnswerTrail(engine="scripted"))
    await anext(deltas)
    assert engine.running == 1
    await deltas.aclose()
    assert engine.running == 0


async def test_without_a_language_model_there_is_no_prompt_and_the_passages_go_as_they_are() -> None:
    engine = quoting_engine("It is [2].")
    deltas, trail = await ask(answering(engine, quoting=engine))
    assert engine.prompts[0].messages == ()
    assert engine.prompts[0].passages == JOB.passages
    assert text_of(deltas) == "It is [2]."
    assert trail.failure == ""


async def test_closing_frees_engine_and_fallback() -> None:
    engine, quoting = ScriptedEngine(capabilities=CAPABILITIES), quoting_engine()
    await answering(engine, quoting=quoting).close()
    assert engine.closed
    assert quoting.closed
