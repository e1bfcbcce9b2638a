"""An engine's failure gives another whole answer that says so, or an answer that says it broke off; never two halves as one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag_backends.generation.engine import Delta, Usage
from tritonrag_backends.generation.fallback import Patience, with_fallback, without_stalls
from tritonrag_client.errors import (
    BadRequestError,
    DeadlineError,
    InternalError,
    OverloadedError,
    RagError,
    RequestCancelledError,
    UnavailableError,
)

QUOTED = (Delta(text="quoted"), Delta(text=" [1]", finish_reason="stop"))
END = Delta(text="", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=2))
FAILURES = [DeadlineError("slow"), OverloadedError("full"), UnavailableError("down at 10.0.0.1"), InternalError("odd")]


class Engine:
    """Gives deltas, then fails if told so; notes what became of it."""

    def __init__(self, *deltas: Delta, error: BaseException | None = None) -> None:
        self.deltas, self.error = deltas, error
        self.begun = self.closed = 0

    async def generate(self) -> AsyncGenerator[Delta, None]:
        self.begun += 1
        try:
            for delta in self.deltas:
                yield delta
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


class Answered:
    """What came of an engine with the extractive one behind it."""

    def __init__(self, engine: Engine, *, strict: bool = False, stream: bool = True) -> None:
        self.engine, self.fallback, self.codes = engine, Engine(*QUOTED), list[str]()
        self.deltas = with_fallback(
            engine.generate(),
            self.fallback.generate,
            engine="openai",
            strict=strict,
            stream=stream,
            on_failure=self.codes.append,
        )

    async def read(self) -> list[Delta]:
        async with aclosing(self.deltas):
            return [delta async for delta in self.deltas]


def texts(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_sound_answer_passes_unchanged(stream: bool) -> None:
    answered = Answered(engine := Engine(Delta(text="a"), Delta(text="b"), END), stream=stream)
    assert await answered.read() == [*engine.deltas]
    assert (answered.fallback.begun, answered.codes, engine.closed) == (0, [], 1)


async def test_streamed_deltas_pass_as_they_come() -> None:
    answered = Answered(Engine(Delta(text="a"), Delta(text="b"), END))
    assert (await anext(answered.deltas)).text == "a"
    await answered.deltas.aclose()
    assert answered.engine.closed == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
async def test_a_failure_before_any_text_is_answered_by_the_fallback_which_says_so(
    error: RagError, stream: bool
) -> None:
    answered = Answered(Engine(Delta(text=""), error=error), stream=stream)
    deltas = await answered.read()
    told = f"the openai engine failed ({error.code}): answered by quoting sentences instead"
    assert deltas == [Delta(text="quoted", degraded=told), QUOTED[1]]
    assert error.message not in told
    assert (answered.codes, answered.engine.closed, answered.fallback.closed) == ([error.code], 1, 1)


async def test_an_answer_that_is_not_streamed_is_replaced_whole() -> None:
    answered = Answered(Engine(Delta(text="half an"), error=UnavailableError("down")), stream=False)
    assert texts(await answered.read()) == "quoted [1]"


async def test_a_streamed_answer_that_breaks_off_ends_with_an_error_and_nothing_is_glued_to_it() -> None:
    answered = Answered(Engine(Delta(text="half an"), error=UnavailableError("down")))
    *before, last = await answered.read()
    assert texts(before) == "half an"
    told = "the openai engine failed in mid-answer (unavailable); what came is not the whole answer"
    assert last == Delta(text="", finish_reason="error", degraded=told)
    assert (answered.fallback.begun, answered.codes) == (0, ["unavailable"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("before", [(), (Delta(text="half"),)], ids=["before any text", "after some"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.code)
async def test_strict_raises_the_error_instead(error: RagError, before: Sequence[Delta], stream: bool) -> None:
    answered = Answered(Engine(*before, error=error), strict=True, stream=stream)
    with pytest.raises(type(error)) as raised:
        await answered.read()
    assert raised.value is error
    assert (answered.fallback.begun, answered.codes) == (0, [error.code])


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("before", [(), (Delta(text="half"),)], ids=["before any text", "after some"])
@pytest.mark.parametrize("error", [BadRequestError("no such adapter"), RequestCancelledError("gone")])
async def test_what_the_asker_did_is_told_to_the_asker(error: RagError, before: Sequence[Delta], strict: bool) -> None:
    answered = Answered(Engine(*before, error=error), strict=strict)
    with pytest.raises(type(error)):
        await answered.read()
    assert (answered.fallback.begun, answered.codes, answered.engine.closed) == (0, [], 1)


async def test_an_unforeseen_error_is_logged_and_its_text_goes_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    assert "secret" not in repr(await Answered(Engine(error=ZeroDivisionError("secret"))).read())
    assert "secret" in caplog.text
    with pytest.raises(InternalError) as raised:
        await Answered(Engine(error=ZeroDivisionError("secret")), strict=True).read()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("end", [(), (Delta(text="", finish_reason="error"),)], ids=["without one", "with error"])
async def test_an_engine_that_ends_without_a_proper_finish_reason_has_failed(end: Sequence[Delta]) -> None:
    assert texts(await Answered(Engine(*end)).read()) == "quoted [1]"
    broken = await Answered(Engine(Delta(text="half"), *end)).read()
    assert (texts(broken), broken[-1].finish_reason) == ("half", "error")


async def test_what_the_fallback_gave_up_itself_is_told_too() -> None:
    answered = Answered(Engine(error=OverloadedError("full")))
    answered.fallback.deltas = (Delta(text="q", finish_reason="stop", degraded="no embedder"),)
    (only,) = await answered.read()
    assert only.degraded.startswith("the openai engine failed (overloaded)")
    assert only.degraded.endswith("; no embedder")


async def test_a_fallback_that_fails_raises_its_error() -> None:
    answered = Answered(Engine(error=OverloadedError("full")))
    answered.fallback.deltas, answered.fallback.error = (), UnavailableError("down too")
    with pytest.raises(UnavailableError, match="down too"):
        await answered.read()


async def test_leaving_during_the_fallback_closes_it() -> None:
    answered = Answered(Engine(error=OverloadedError("full")))
    await anext(answered.deltas)
    await answered.deltas.aclose()
    assert answered.fallback.closed == 1


async def test_the_engine_is_closed_before_the_fallback_begins() -> None:
    engine = Engine(error=OverloadedError("full"))
    answered = Answered(engine)
    await anext(answered.deltas)
    assert engine.closed == 1
    await answered.deltas.aclose()


async def test_an_engine_that_fails_while_it_is_closed_is_no_reason_to_answer_once_more() -> None:
    async def engine() -> AsyncGenerator[Delta, None]:
        try:
            yield Delta(text="a")
        finally:
            raise UnavailableError("odd end")

    deltas = with_fallback(
        engine(), Engine(*QUOTED).generate, engine="openai", strict=False, stream=True, on_failure=print
    )
    await anext(deltas)
    with pytest.raises(UnavailableError, match="odd end"):
        await deltas.aclose()


@given(
    pieces=st.lists(st.sampled_from(["", "a", "b"]), max_size=5),
    fails=st.booleans(),
    stream=st.booleans(),
)
async def test_the_text_is_the_engines_or_the_fallbacks_or_says_that_it_broke_off(
    pieces: list[str], fails: bool, stream: bool
) -> None:
    end = () if fails else (END,)
    error = UnavailableError("down") if fails else None
    deltas = await Answered(Engine(*(Delta(text=piece) for piece in pieces), *end, error=error), stream=stream).read()
    whole = "".join(pieces)
    expected = {
        (False, True): (whole, "stop"),
        (False, False): (whole, "stop"),
        (True, True): (whole, "error") if whole else ("quoted [1]", "stop"),
        (True, False): ("quoted [1]", "stop"),
    }
    assert (texts(deltas), deltas[-1].finish_reason) == expected[fails, stream]
    assert any(delta.degraded for delta in deltas) == fails


@pytest.mark.parametrize("patience", [Patience(), Patience(first_s=60, next_s=60)])
@pytest.mark.parametrize("before", [(), (Delta(text="half"),)], ids=["before any text", "after some"])
async def test_an_engines_own_timeout_is_no_stall(before: Sequence[Delta], patience: Patience) -> None:
    engine = Engine(*before, error=TimeoutError("of its own"))
    with pytest.raises(TimeoutError, match="of its own"):
        _ = [delta async for delta in without_stalls(engine.generate(), patience, engine="openai")]
    assert engine.closed == 1
