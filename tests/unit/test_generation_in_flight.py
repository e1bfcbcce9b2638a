"""Whoever asks the same at the same time gets the same answer, whole, from one generation; nobody's leaving harms the others."""

import asyncio
import gc
import logging
import random
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonrag_backends.generation.answer_cache import AnswerCache, Answers
from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.in_flight import SharedAnswer
from tritonrag_backends.generation.memory_store import MemoryStore
from tritonrag_client.errors import InternalError, OverloadedError, UnavailableError


class Stepped:
    """Gives a delta for each permission; fails or ends when its texts are used up."""

    def __init__(self, *texts: str, error: Exception | None = None) -> None:
        self.texts, self.error = texts, error
        self.may = asyncio.Semaphore(0)
        self.begun = self.closed = 0

    def go_on(self, steps: int = 1_000) -> None:
        for _ in range(steps):
            self.may.release()

    async def generate(self) -> AsyncGenerator[Delta, None]:
        self.begun += 1
        try:
            for text in self.texts:
                await self.may.acquire()
                yield Delta(text=text)
            await self.may.acquire()
            if self.error is not None:
                raise self.error
            yield Delta(text="", finish_reason="stop")
        finally:
            try:
                await asyncio.sleep(0)  # to end takes a while
            finally:
                self.closed += 1


async def text_of(answers: Answers) -> str:
    async with aclosing(answers):
        return "".join([delta.text async for delta in answers])


async def settle() -> None:
    await _ticks(10)


async def test_one_generation_for_all_who_ask_at_once_and_for_those_who_come_in_its_midst() -> None:
    cache, engine = AnswerCache(None), Stepped("a", "b", "c")
    early = [asyncio.ensure_future(text_of(cache.answers("k", engine.generate))) for _ in range(5)]
    await settle()
    engine.go_on(2)
    await settle()
    late = [asyncio.ensure_future(text_of(cache.answers("k", engine.generate))) for _ in range(5)]
    await settle()
    engine.go_on()
    assert await asyncio.gather(*early, *late) == ["abc"] * 10
    assert (engine.begun, engine.closed, len(cache)) == (1, 1, 0)


async def test_a_slow_reader_holds_nobody_up_and_misses_nothing() -> None:
    cache, engine = AnswerCache(None), Stepped("a", "b", "c")
    slow = cache.answers("k", engine.generate)
    engine.go_on()
    assert (await anext(slow)).text == "a"
    assert await text_of(cache.answers("k", engine.generate)) == "abc"
    await settle()
    assert engine.closed == 1
    assert [delta.text async for delta in slow] == ["b", "c", ""]


async def test_the_first_asker_may_leave_and_the_others_go_on() -> None:
    cache, engine = AnswerCache(MemoryStore(10_000, 60)), Stepped("a", "b")
    first, second = cache.answers("k", engine.generate), cache.answers("k", engine.generate)
    engine.go_on(1)
    await anext(first)
    await anext(second)
    await first.aclose()
    assert engine.closed == 0
    engine.go_on()
    assert await text_of(second) == "b"
    assert (first.outcome, second.outcome) == ("miss", "shared")


async def test_a_first_asker_that_is_cancelled_takes_nobody_along() -> None:
    cache, engine = AnswerCache(None), Stepped("a")
    first, second = (asyncio.ensure_future(text_of(cache.answers("k", engine.generate))) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    engine.go_on()
    assert await second == "a"
    assert first.cancelled()


async def test_when_the_last_one_leaves_the_engine_is_closed_before_leaving_is_over_and_nothing_is_kept() -> None:
    cache, engine = AnswerCache(store := MemoryStore(10_000, 60)), Stepped("a", "b")
    both = [cache.answers("k", engine.generate) for _ in range(2)]
    engine.go_on(1)
    for one in both:
        await anext(one)
    for one in both:
        await one.aclose()
    assert (engine.closed, len(store), len(cache)) == (1, 0, 0)


async def test_who_comes_while_a_generation_is_being_closed_begins_a_new_one() -> None:
    cache, engine = AnswerCache(None), Stepped("a")
    leaving = asyncio.ensure_future(text_of(cache.answers("k", engine.generate)))
    await settle()
    leaving.cancel()
    await asyncio.sleep(0)  # the cancellation is on its way, the engine not yet closed
    assert engine.closed == 0
    engine.go_on()
    assert await text_of(cache.answers("k", engine.generate)) == "a"
    assert engine.begun == 2


async def test_an_error_reaches_all_each_with_an_instance_of_its_own_after_what_came_before() -> None:
    cache, engine = AnswerCache(None), Stepped("a", error=OverloadedError("full"))
    seen: list[OverloadedError] = []

    async def ask() -> str:
        text = ""
        try:
            async for delta in (answers := cache.answers("k", engine.generate)):
                text += delta.text
        except OverloadedError as error:
            seen.append(error)
        await answers.aclose()
        return text

    askers = [asyncio.ensure_future(ask()) for _ in range(3)]
    await settle()
    engine.go_on()
    assert await asyncio.gather(*askers) == ["a"] * 3
    assert len({id(error) for error in seen}) == 3
    assert {error.message for error in seen} == {"full"}
    # Its own way, then where it came from: not the ways of the others.
    assert all(len(traceback.extract_tb(error.__traceback__)) < 8 for error in seen)
    assert all(error.__cause__ is engine.error for error in seen)


async def test_who_comes_after_an_error_begins_a_new_generation() -> None:
    cache, failing, sound = AnswerCache(None), Stepped(error=OverloadedError("full")), Stepped("a")
    failing.go_on()
    sound.go_on()
    waiting = cache.answers("k", failing.generate)
    with pytest.raises(OverloadedError):
        await anext(waiting)
    assert await text_of(cache.answers("k", sound.generate)) == "a"


async def test_an_unforeseen_error_is_logged_once_and_reaches_all_as_internal(caplog: pytest.LogCaptureFixture) -> None:
    cache, engine = AnswerCache(None), Stepped(error=ZeroDivisionError("secret detail"))
    engine.go_on()
    results = await asyncio.gather(
        *(text_of(cache.answers("k", engine.generate)) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [InternalError] * 3
    assert "secret" not in str(results[0])
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "secret detail" in caplog.text


async def test_closing_the_cache_ends_what_runs() -> None:
    cache, engine = AnswerCache(None), Stepped("a")
    asking = asyncio.ensure_future(text_of(cache.answers("k", engine.generate)))
    await settle()
    await cache.close()
    with pytest.raises(UnavailableError):
        await asking
    assert (engine.closed, len(cache)) == (1, 0)


async def test_answers_that_nobody_reads_begin_nothing() -> None:
    cache, engine = AnswerCache(None), Stepped("a")
    await cache.answers("k", engine.generate).aclose()
    assert (engine.begun, len(cache)) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_comers_and_leavers_get_whole_answers_and_leave_nothing_behind(seed: int) -> None:
    asyncio.run(_crowd(random.Random(seed)))


async def _crowd(chance: random.Random) -> None:
    engines: list[Stepped] = []
    cache = AnswerCache(MemoryStore(100_000, 60) if chance.random() < 0.5 else None)

    def begin() -> AsyncGenerator[Delta, None]:
        engines.append(engine := Stepped("a", "b", "c", error=OverloadedError("x") if chance.random() < 0.3 else None))
        engine.go_on()
        return engine.generate()

    asked = [_ask(cache.answers(chance.choice("kl"), begin), chance) for _ in range(chance.randrange(1, 30))]
    askers = [asyncio.ensure_future(ask) for ask in asked]
    for asker in askers:
        if chance.random() < 0.2:
            await _ticks(chance.randrange(4))
            asker.cancel()
    results = await asyncio.gather(*askers, return_exceptions=True)
    for result in results:
        assert result in {None, "abc"} or isinstance(result, OverloadedError | asyncio.CancelledError)
    await settle()  # who was cancelled while the engine was being closed did not wait for it
    assert all(engine.closed == engine.begun for engine in engines)
    assert len(cache) == 0
    assert not cache._in_flight._shared
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _ask(answers: Answers, chance: random.Random) -> str | None:
    """Come at some time, read at some pace, and perhaps leave before the end, which gives None."""
    text, patience = "", chance.choice([0, 1, 2, 3, 99, 99])
    await _ticks(chance.randrange(6))
    async with aclosing(answers):
        async for delta in answers:
            text += delta.text
            if (patience := patience - 1) < 0:
                return None
            await _ticks(chance.randrange(3))
    return text


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_answer_that_is_over_is_not_held_in_memory() -> None:
    cache, engine = AnswerCache(None), Stepped("a")
    engine.go_on()
    await text_of(cache.answers("k", engine.generate))
    await settle()
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is SharedAnswer]
