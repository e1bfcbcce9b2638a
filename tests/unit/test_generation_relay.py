"""The relay passes deltas on, and aborts the engine when nobody wants them."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.relay import MOST_CHARACTERS, relay, unless_unwanted
from tritonrag_backends.generation.running import Generation
from tritonrag_client.errors import DeadlineError


class ScriptedEngine:
    """Gives its deltas and then, if told so, hangs; notes whether it was closed."""

    def __init__(self, *texts: str, hangs: bool = False) -> None:
        self.texts, self.hangs, self.closed = texts, hangs, False

    async def generate(self) -> AsyncGenerator[Delta, None]:
        try:
            for text in self.texts:
                yield Delta(text=text)
            if self.hangs:
                await asyncio.Event().wait()
            yield Delta(text="", finish_reason="stop")
        finally:
            self.closed = True


async def test_deltas_pass_in_order_and_the_engine_is_closed() -> None:
    engine = ScriptedEngine("a", "b")
    deltas = [delta async for delta in relay(engine.generate(), Generation(), lambda: False)]
    assert [delta.text for delta in deltas] == ["a", "b", ""]
    assert deltas[-1].finish_reason == "stop"
    assert engine.closed


async def test_a_stop_ends_a_hanging_engine_with_finish_reason_cancelled() -> None:
    engine, generation = ScriptedEngine("a", hangs=True), Generation()
    deltas = []
    async for delta in relay(engine.generate(), generation, lambda: False, poll_s=60):
        deltas.append(delta)
        generation.stopped.set()
    assert [delta.finish_reason for delta in deltas] == [None, "cancelled"]
    assert engine.closed


async def test_a_client_that_vanishes_while_the_engine_is_silent_is_noticed() -> None:
    engine = ScriptedEngine(hangs=True)
    answers = iter([False, False, True])
    deltas = [delta async for delta in relay(engine.generate(), Generation(), lambda: next(answers), poll_s=0.001)]
    assert [delta.finish_reason for delta in deltas] == ["cancelled"]
    assert engine.closed


async def test_an_engines_error_reaches_the_caller_and_the_engine_is_closed() -> None:
    async def failing() -> AsyncGenerator[Delta, None]:
        yield Delta(text="a")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        _ = [delta async for delta in relay(failing(), Generation(), lambda: False)]


async def test_leaving_the_relay_early_closes_the_engine() -> None:
    engine = ScriptedEngine("a", "b")
    deltas = relay(engine.generate(), Generation(), lambda: False)
    await anext(deltas)
    await deltas.aclose()
    assert engine.closed


async def test_once_the_time_is_spent_the_engine_is_closed_and_the_caller_told() -> None:
    engine = ScriptedEngine("a", hangs=True)
    deadline_s = asyncio.get_running_loop().time() + 0.05
    deltas = relay(engine.generate(), Generation(), lambda: False, poll_s=60, deadline_s=deadline_s)
    assert (await anext(deltas)).text == "a"
    with pytest.raises(DeadlineError):
        await anext(deltas)
    assert engine.closed


async def test_no_work_begins_after_the_deadline() -> None:
    begun = False

    async def engine() -> AsyncGenerator[Delta, None]:
        nonlocal begun
        begun = True
        yield Delta(text="a", finish_reason="stop")

    with pytest.raises(DeadlineError):
        await anext(relay(engine(), Generation(), lambda: False, deadline_s=asyncio.get_running_loop().time()))
    assert not begun


async def test_a_long_answer_comes_in_fewer_responses_and_whole() -> None:
    words = [f"w{number} " for number in range(1000)]
    engine = ScriptedEngine(*words)
    deltas = [delta async for delta in relay(engine.generate(), Generation(), lambda: False)]
    assert "".join(delta.text for delta in deltas) == "".join(words)
    assert [delta.text for delta in deltas[:20]] == words[:20]
    assert len(deltas) < len(words) / 2


async def test_what_is_held_back_comes_while_the_engine_is_silent() -> None:
    engine = ScriptedEngine(*(["x"] * 40), hangs=True)
    deltas = relay(engine.generate(), Generation(), lambda: False, poll_s=60)
    text = ""
    while len(text) < 40:
        text += (await anext(deltas)).text
    await deltas.aclose()
    assert engine.closed


async def test_what_is_held_back_comes_before_the_engines_error() -> None:
    async def failing() -> AsyncGenerator[Delta, None]:
        for _ in range(40):
            yield Delta(text="x")
        raise ValueError("boom")

    deltas, text = relay(failing(), Generation(), lambda: False), ""
    while len(text) < 40:
        text += (await anext(deltas)).text
    with pytest.raises(ValueError, match="boom"):
        await anext(deltas)


async def test_a_stop_passes_on_what_is_held_back() -> None:
    engine, generation = ScriptedEngine(*(["x"] * 40), hangs=True), Generation()
    deltas = []
    async for delta in relay(engine.generate(), generation, lambda: False):
        deltas.append(delta)
        if len(deltas) == 32:
            generation.stopped.set()
    assert (deltas[-1].finish_reason, "".join(delta.text for delta in deltas)[:32]) == ("cancelled", "x" * 32)


async def test_an_engine_that_does_not_end_is_ended_by_the_answers_length() -> None:
    closed = False

    async def endless() -> AsyncGenerator[Delta, None]:
        nonlocal closed
        try:
            while True:
                yield Delta(text="x" * 10_000)
        finally:
            closed = True

    deltas = [delta async for delta in relay(endless(), Generation(), lambda: False)]
    assert deltas[-1].finish_reason == "length"
    assert sum(len(delta.text) for delta in deltas) <= MOST_CHARACTERS + 10_000
    assert closed


async def test_what_is_held_back_comes_before_the_deadlines_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(f"tritonrag_backends.generation.gathering.{pause}", 60.0)
    engine = ScriptedEngine(*(["x"] * 40), hangs=True)
    deadline_s = asyncio.get_running_loop().time() + 0.5
    deltas = relay(engine.generate(), Generation(), lambda: False, deadline_s=deadline_s)
    assert [(await anext(deltas)).text for _ in range(33)] == ["x"] * 32 + ["x" * 8]
    with pytest.raises(DeadlineError):
        await anext(deltas)
    assert engine.closed


class Work:
    """Hangs, if told so, until it is cancelled."""

    def __init__(self, *, hangs: bool = True, error: Exception | None = None) -> None:
        self.hangs, self.error, self.cancelled = hangs, error, False

    async def run(self) -> str:
        try:
            if self.hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return "done"


async def test_work_that_is_wanted_gives_its_result_or_its_error() -> None:
    assert await unless_unwanted(Work(hangs=False).run(), Generation(), lambda: False) == "done"
    with pytest.raises(ValueError, match="boom"):
        await unless_unwanted(Work(hangs=False, error=ValueError("boom")).run(), Generation(), lambda: False)


async def test_a_stop_ends_what_comes_before_the_answer() -> None:
    work, generation = Work(), Generation()
    asyncio.get_running_loop().call_later(0.01, generation.stopped.set)
    assert await unless_unwanted(work.run(), generation, lambda: False, poll_s=60) is None
    assert work.cancelled


async def test_a_client_that_vanishes_ends_what_comes_before_the_answer() -> None:
    work, answers = Work(), iter([False, False, True])
    assert await unless_unwanted(work.run(), Generation(), lambda: next(answers), poll_s=0.001) is None
    assert work.cancelled


async def test_leaving_what_comes_before_the_answer_ends_it() -> None:
    work = Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await unless_unwanted(work.run(), Generation(), lambda: False, poll_s=60)
    assert work.cancelled
