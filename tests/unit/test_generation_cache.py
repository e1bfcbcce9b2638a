"""A known answer is given again, whole and unchanged; what is not a whole, sound answer is never kept."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.answer_cache import AnswerCache, Answers, open_store
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.generation.engine import Delta, Usage
from tritonrag_backends.generation.known_answer import KnownAnswer, decode, encode
from tritonrag_backends.generation.memory_store import MemoryStore
from tritonrag_client.errors import OverloadedError

COUNT = st.integers(0, 2**40)
ANSWERS = st.builds(
    KnownAnswer,
    text=st.text(st.characters(exclude_categories=())),
    finish_reason=st.sampled_from(["stop", "length"]),
    usage=st.one_of(st.none(), st.builds(Usage, prompt_tokens=COUNT, completion_tokens=COUNT, cached_tokens=COUNT)),
)
WHOLE = (Delta(text="a"), Delta(text="b", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=2)))


class Engine:
    """Gives its deltas, and counts how often it was asked."""

    def __init__(self, deltas: Sequence[Delta] = WHOLE, error: Exception | None = None) -> None:
        self.deltas, self.error = deltas, error
        self.begun = self.closed = 0

    async def generate(self) -> AsyncGenerator[Delta, None]:
        self.begun += 1
        try:
            for delta in self.deltas:
                yield delta
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def read(answers: Answers) -> list[Delta]:
    async with aclosing(answers):
        return [delta async for delta in answers]


async def test_the_second_asker_gets_the_same_answer_without_the_engine() -> None:
    cache, engine = AnswerCache(MemoryStore(10_000, 60)), Engine()
    first, second = cache.answers("k", engine.generate), cache.answers("k", engine.generate)
    assert await read(first) == list(WHOLE)
    assert await read(second) == [Delta(text="ab", finish_reason="stop", usage=WHOLE[-1].usage)]
    assert (first.outcome, second.outcome) == ("miss", "hit")
    assert (engine.begun, engine.closed) == (1, 1)


async def test_another_key_is_another_question() -> None:
    cache, engine = AnswerCache(MemoryStore(10_000, 60)), Engine()
    for key in ("k", "l"):
        await read(cache.answers(key, engine.generate))
    assert engine.begun == 2


async def test_without_a_key_each_asker_has_a_generation() -> None:
    cache, engine = AnswerCache(MemoryStore(10_000, 60)), Engine()
    both = [cache.answers(None, engine.generate) for _ in range(2)]
    assert await asyncio.gather(*map(read, both)) == [list(WHOLE)] * 2
    assert [one.outcome for one in both] == ["off", "off"]
    assert engine.begun == 2


async def test_without_a_store_nothing_is_kept_but_askers_at_once_share() -> None:
    cache, engine = AnswerCache(None), Engine()
    both = [cache.answers("k", engine.generate) for _ in range(2)]
    assert await asyncio.gather(*map(read, both)) == [list(WHOLE)] * 2
    assert [one.outcome for one in both] == ["off", "shared"]
    await read(cache.answers("k", engine.generate))
    assert engine.begun == 2


@pytest.mark.parametrize(
    "deltas",
    [
        (),
        (Delta(text="a"),),
        (Delta(text="a", degraded="something was given up"), Delta(text="", finish_reason="stop")),
        (Delta(text="a"), Delta(text="", finish_reason="stop", degraded="something was given up")),
        (Delta(text="a"), Delta(text="", finish_reason="cancelled")),
        (Delta(text="a"), Delta(text="", finish_reason="error")),
    ],
)
async def test_what_is_not_a_whole_sound_answer_is_not_kept(deltas: Sequence[Delta]) -> None:
    cache, engine = AnswerCache(store := MemoryStore(10_000, 60)), Engine(deltas)
    assert await read(cache.answers("k", engine.generate)) == list(deltas)
    assert len(store) == 0


async def test_an_error_is_not_kept() -> None:
    cache, engine = AnswerCache(store := MemoryStore(10_000, 60)), Engine(WHOLE[:1], OverloadedError("full"))
    for _ in range(2):
        with pytest.raises(OverloadedError, match="full"):
            await read(cache.answers("k", engine.generate))
    assert (engine.begun, len(store), len(cache)) == (2, 0, 0)


async def test_an_answer_is_kept_though_its_asker_reads_no_further_than_the_end() -> None:
    cache, engine = AnswerCache(store := MemoryStore(10_000, 60)), Engine()
    async with aclosing(cache.answers("k", engine.generate)) as answers:
        async for delta in answers:
            if delta.finish_reason is not None:
                break
    assert (len(store), engine.closed, len(cache)) == (1, 1, 0)


async def test_askers_at_once_wait_for_a_slow_store_once() -> None:
    class SlowStore(MemoryStore):
        asked = 0

        async def get(self, key: str) -> KnownAnswer | None:
            self.asked += 1
            await asyncio.sleep(0)
            return await super().get(key)

    store, engine = SlowStore(10_000, 60), Engine()
    await store.put("k", KnownAnswer(text="ab", finish_reason="stop"))
    cache = AnswerCache(store)
    askers = [cache.answers("k", engine.generate) for _ in range(9)]
    await asyncio.gather(*map(read, askers))
    assert (store.asked, engine.begun) == (1, 0)
    assert Counter(asker.outcome for asker in askers) == {"hit": 9}


async def test_memory_keeps_the_answers_used_last_within_its_bytes() -> None:
    store = MemoryStore(3_000, 60)
    for n in range(3):
        await store.put(str(n), KnownAnswer(text="x" * 400, finish_reason="stop"))
    assert await store.get("0") is not None
    await store.put("3", KnownAnswer(text="x" * 400, finish_reason="stop"))
    known = [key for key in "0123" if await store.get(key)]
    assert known == ["0", "2", "3"]
    assert store.bytes <= 3_000
    assert store.counts == {"evicted": 1}


async def test_memory_forgets_an_answer_when_its_time_is_over() -> None:
    store = MemoryStore(10_000, 60, clock := Clock())
    await store.put("k", KnownAnswer(text="a", finish_reason="stop"))
    clock.now_s = 59.9
    assert await store.get("k") is not None
    clock.now_s = 60
    assert await store.get("k") is None
    assert (len(store), store.bytes) == (0, 0)


async def test_memory_refuses_an_answer_larger_than_all_of_it() -> None:
    store = MemoryStore(1_000, 60)
    await store.put("small", KnownAnswer(text="a", finish_reason="stop"))
    await store.put("k", KnownAnswer(text="x" * 2_000, finish_reason="stop"))
    assert await store.get("k") is None
    assert await store.get("small") is not None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 600), st.floats(0, 30)), max_size=40))
def test_memory_counts_its_bytes_right_whatever_is_put(steps: list[tuple[str, int, float]]) -> None:
    async def run() -> None:
        store = MemoryStore(2_000, 60, clock := Clock())
        for key, length, later_s in steps:
            clock.now_s += later_s
            answer = KnownAnswer(text="x" * length, finish_reason="stop")
            await store.put(key, answer)
            assert await store.get(key) == answer
            assert store.bytes == sum(entry.bytes for entry in store._entries.values()) <= 2_000

    asyncio.run(run())


@given(answer=ANSWERS)
def test_an_answer_comes_back_as_it_was_written_down(answer: KnownAnswer) -> None:
    assert decode("k", encode("k", answer)) == answer


@given(answer=ANSWERS, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_one_changed_byte_is_found_out(answer: KnownAnswer, at: int, byte: int) -> None:
    data = bytearray(encode("k", answer))
    at %= len(data)
    if data[at] == byte:
        byte ^= 1
    data[at] = byte
    with pytest.raises(ValueError):  # noqa: PT011 - any
        decode("k", bytes(data))


@given(data=st.one_of(st.binary(), st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())))
def test_what_is_not_ours_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        decode("k", data)


async def test_the_settings_say_which_store() -> None:
    assert open_store(CacheSettings()) is None
    assert isinstance(open_store(CacheSettings(store="memory")), MemoryStore)
