"""Whatever a server does, what our caller sees is one of our errors, soon, and with nothing in it that is not theirs to see."""

import asyncio
import json
import logging
import random
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_misbehaving_server import (
    DONE,
    KEY,
    PATIENCE_S,
    PROMPT,
    WHOLE,
    Behaviour,
    MisbehavingServer,
    answers,
    ask,
    chunk,
    closes,
    engine_at,
    event,
    full_backlog,
    head,
    opened,
    says,
    served,
    stalls,
    streams,
    text_of,
    until,
    without_end,
)
from pydantic import SecretStr

from tritonrag_backends.generation.engine import Delta, Sampling
from tritonrag_backends.generation.openai.failures import Judge
from tritonrag_backends.generation.openai.retries import pause_s, retry_after_s
from tritonrag_client.errors import (
    BadRequestError,
    DeadlineError,
    InternalError,
    OverloadedError,
    RagError,
    UnavailableError,
)

TOLD = json.dumps({"error": {"message": "told you so", "type": "some", "code": None}})
ONCE = {"attempts": 1}


async def outcome(*script: Behaviour, **settings: Any) -> tuple[MisbehavingServer, list[Delta] | RagError]:
    """The server after one question, and the answer or the error."""
    async with served(*script, **settings) as (server, engine):
        (result,) = await asyncio.gather(ask(engine), return_exceptions=True)
        assert engine.load.running == 0
    assert not any(secret in str(result) for secret in (KEY, str(server.port)))
    assert isinstance(result, list | RagError), result
    return server, result


@pytest.mark.parametrize(
    ("status", "body", "expected", "tries"),
    [
        ("400 Bad Request", TOLD, "bad_request: the language model's server refused the request: told you so", 1),
        ("413 Too Large", "", "bad_request: the language model's server refused the request: status 413", 1),
        (
            "422 Unprocessable",
            '{"detail": "too long"}',
            "bad_request: the language model's server refused the request: too long",
            1,
        ),
        ("400 Bad Request", '{"message": "no model `tiny` here"}', "unavailable: ", 1),
        ("422 Unprocessable", '{"detail": "Unexpected fields: cache_salt"}', "unavailable: ", 1),
        ("401 Unauthorized", TOLD, "unavailable: ", 1),
        ("403 Forbidden", TOLD, "unavailable: ", 1),
        ("404 Not Found", TOLD, "unavailable: ", 1),
        ("405 Method Not Allowed", "", "unavailable: ", 1),
        ("206 Partial Content", "", "unavailable: ", 1),
        ("408 Request Timeout", "", "unavailable: ", 3),
        ("409 Conflict", "", "unavailable: ", 3),
        ("429 Too Many Requests", TOLD, "overloaded: ", 3),
        ("500 Internal Server Error", "<html>", "unavailable: ", 3),
        ("503 Service Unavailable", "", "unavailable: ", 3),
    ],
)
async def test_each_status_has_its_error_and_its_number_of_tries(
    status: str, body: str, expected: str, tries: int
) -> None:
    server, error = await outcome(answers(status, body))
    assert str(error).startswith(expected)
    assert len(server.requests) == tries
    if not expected.startswith("bad_request"):
        assert "told you so" not in str(error)


async def test_a_model_that_the_request_itself_named_is_the_requests_fault() -> None:
    async with served(answers("404 Not Found", '{"message": "The model `legal` does not exist."}')) as (_, engine):
        with pytest.raises(BadRequestError, match="`legal` does not exist"):
            await ask(engine, lora_name="legal")


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (closes, UnavailableError),
        (says(b"HTTP/1.1 200 OK\r\nContent-"), UnavailableError),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), InternalError),
        (without_end(b"X-Header: " + b"x" * 1000 + b"\r\n", before=b"HTTP/1.1 200 OK\r\n"), InternalError),
        (without_end(b"x" * 1000, before=b"HTTP/1.1 200 OK\r\nX-Header: "), InternalError),
        (answers("200 OK", "<html>Welcome</html>", "text/html"), InternalError),
        (answers("200 OK", b"".join(WHOLE), "text/plain"), InternalError),
        (answers("200 OK", b"".join(WHOLE), None), InternalError),
        (answers("200 OK", "<html>Welcome</html>"), InternalError),
        (answers("200 OK", b"".join(WHOLE), "text/event-stream", Content_Encoding="gzip"), InternalError),
        (streams(event("{garbage")), InternalError),
        (streams(event("[1]")), InternalError),
        (streams(event('{"choices": [7]}')), InternalError),
        (streams(event('{"choices": [{"delta": {"content": 7}}]}')), InternalError),
        (streams(event('{"choices": [{"delta": {}, "finish_reason": 7}]}')), InternalError),
        (streams(event("[" * 100_000)), InternalError),
        (streams(event("7" * 10_000)), InternalError),
        (streams(event('{"nothing": 1}')), InternalError),
        (streams(), UnavailableError),
        (streams(DONE), UnavailableError),
        (streams(event(TOLD)), UnavailableError),
        (streams(event('{"error": {"message": "no", "code": 400}}')), BadRequestError),
        (streams(event('{"error": {"message": "no", "code": 429}}')), OverloadedError),
        (streams(event('{"object": "error", "message": "no", "code": 400}')), BadRequestError),
        (streams(chunk(finish_reason="abort")), UnavailableError),
    ],
)
async def test_whatever_comes_before_the_first_token_is_one_of_our_errors(
    behaviour: Behaviour, expected: type[RagError]
) -> None:
    _, error = await outcome(behaviour, **ONCE)
    assert type(error) is expected


@pytest.mark.parametrize(
    "then",
    [
        streams(chunk("Hello"), ends=False),
        streams(chunk("Hello")),
        streams(chunk("Hello"), event(TOLD)),
        streams(chunk("Hello"), event("{garbage")),
        streams(chunk("Hello"), b'data: {"choices": [{"delta": {"content": "\xc3', ends=False),
        streams(chunk("Hello"), b'data: {"choices": [{"delta": {"content": "\xc3'),
        streams(chunk("Hello"), then=without_end(b"%x\r\n%b\r\n" % (1000, b"x" * 1000))),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_and_never_tried_again(then: Behaviour) -> None:
    async with served(then) as (server, engine):
        async with aclosing(engine.generate(PROMPT, Sampling(max_tokens=20))) as deltas:
            assert await anext(deltas) == Delta(text="Hello")
            with pytest.raises((UnavailableError, InternalError)):
                await anext(deltas)
        assert len(server.requests) == 1


@pytest.mark.parametrize("then", [says(b"zz\r\nno chunk\r\n"), without_end(b"f" * 1000), says(b"5\r\nabc")])
async def test_a_body_that_is_no_http_is_an_error_whenever_it_comes(then: Behaviour) -> None:
    _, error = await outcome(streams(chunk("Hello"), then=then), **ONCE)
    assert isinstance(error, InternalError | UnavailableError)


@pytest.mark.parametrize(
    "bad", [closes, answers("500 Oops", ""), streams(event(TOLD)), streams(b": ping\n\n", ends=False)]
)
async def test_what_fails_before_the_first_token_is_tried_again(bad: Behaviour) -> None:
    server, deltas = await outcome(bad, bad, streams(*WHOLE))
    assert not isinstance(deltas, RagError)
    assert text_of(deltas) == "Hello world."
    assert len(server.requests) == 3


async def test_a_429_is_waited_for_as_long_as_it_asks() -> None:
    busy = answers("429 Too Many Requests", "", Retry_After="1")
    began_s = asyncio.get_running_loop().time()
    _, deltas = await outcome(busy, streams(*WHOLE))
    assert not isinstance(deltas, RagError)
    assert asyncio.get_running_loop().time() - began_s >= 1


async def test_a_429_that_asks_for_more_time_than_there_is_fails_at_once() -> None:
    server, error = await outcome(answers("429 Too Many Requests", "", Retry_After="3600"))
    assert isinstance(error, OverloadedError)
    assert len(server.requests) == 1


async def test_a_redirect_is_not_followed_and_the_key_stays() -> None:
    async with MisbehavingServer(streams(*WHOLE)) as elsewhere:
        moved = answers("307 Temporary Redirect", "", Location=f"{elsewhere.url}/chat/completions")
        server, error = await outcome(moved)
        assert isinstance(error, UnavailableError)
        assert len(server.requests) == 1
        assert elsewhere.requests == []


async def test_cookies_are_not_kept() -> None:
    async with served(answers("500 Oops", "", Set_Cookie="a=b"), streams(*WHOLE)) as (server, engine):
        await ask(engine)
        assert "cookie" not in server.requests[1].headers


async def test_connecting_has_its_own_time() -> None:
    url, sockets = full_backlog()
    async with opened(engine_at(url, connect_timeout_s=0.1, **ONCE)) as engine:
        with pytest.raises(UnavailableError, match=r"within 0\.1 s \(TRITONRAG_OPENAI_CONNECT_TIMEOUT_S\)"):
            await ask(engine)
    for each in sockets:
        with closing(each):
            pass


@pytest.mark.parametrize(
    "behaviour",
    [
        stalls,
        streams(then=stalls),
        streams(b": ping\n\n", event('{"choices": [{"delta": {"role": "assistant"}}]}'), then=stalls),
        without_end(b"4\r\n:hm\n\r\n", before=head()),
    ],
)
async def test_the_first_token_has_its_own_time(behaviour: Behaviour) -> None:
    _, error = await outcome(behaviour, first_token_timeout_s=0.2, **ONCE)
    assert isinstance(error, DeadlineError)


async def test_an_error_without_end_is_an_error_all_the_same() -> None:
    _, error = await outcome(without_end(b"4\r\noops\r\n", before=head("500 Oops")), **ONCE)
    assert isinstance(error, UnavailableError)


async def test_a_silent_server_is_told_by_variable_and_let_go() -> None:
    server, error = await outcome(stalls, first_token_timeout_s=0.5)
    assert "within 0.5 s (TRITONRAG_OPENAI_FIRST_TOKEN_TIMEOUT_S)" in str(error)
    assert isinstance(error, DeadlineError)
    assert len(server.requests) == 1


async def test_a_server_that_stalls_in_mid_answer_is_told_by_variable_and_let_go() -> None:
    async with served(streams(chunk("Hello"), then=stalls), total_timeout_s=0.3) as (server, engine):
        with pytest.raises(DeadlineError, match=r"within 0\.3 s \(TRITONRAG_OPENAI_TOTAL_TIMEOUT_S\)"):
            await ask(engine)
        await asyncio.wait_for(server.requests[0].gone.wait(), PATIENCE_S)


async def test_waiting_for_a_connection_is_part_of_the_whole_time() -> None:
    async with served(streams(chunk("Hello"), then=stalls), total_timeout_s=0.3, max_connections=1) as (server, engine):
        first = asyncio.ensure_future(ask(engine))
        results = await asyncio.gather(first, ask(engine), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineError, DeadlineError]
        assert len(server.requests) <= 2


async def test_what_follows_the_end_of_the_text_spoils_nothing() -> None:
    for after in (event("{garbage"), event(TOLD), b"data: " + b"x" * (2 << 20)):
        _, deltas = await outcome(streams(chunk("Hello", finish_reason="stop"), after, ends=False))
        assert not isinstance(deltas, RagError)
        assert [deltas[0].text, deltas[-1].finish_reason] == ["Hello", "stop"]


async def test_a_server_that_fails_again_and_again_is_left_alone() -> None:
    async with served(answers("500 Oops", ""), breaker_failures=4, breaker_open_s=60) as (server, engine):
        for _ in range(2):  # three tries, and one more that opens the breaker
            with pytest.raises(UnavailableError, match="status 500"):
                await ask(engine)
        with pytest.raises(UnavailableError, match=r"left alone for another \d+\.\d s after 4 failures in a row"):
            await ask(engine)
        assert len(server.requests) == 4


async def test_it_is_tried_again_later_and_taken_back() -> None:
    async with served(
        answers("500 Oops", ""), answers("500 Oops", ""), streams(*WHOLE), breaker_failures=2, breaker_open_s=0.05
    ) as (_, engine):
        with pytest.raises(UnavailableError, match="status 500"):
            await ask(engine)
        await until(lambda: engine._breaker.state != "open")
        assert text_of(await ask(engine)) == "Hello world."
        assert engine._breaker.state == "closed"


@pytest.mark.parametrize("behaviour", [answers("400 Bad", TOLD), answers("429 Busy", "", Retry_After="3600")])
async def test_bad_requests_and_busy_servers_are_no_reason_to_leave_it_alone(behaviour: Behaviour) -> None:
    async with served(behaviour, breaker_failures=1) as (server, engine):
        for _ in range(3):
            with pytest.raises((BadRequestError, OverloadedError)):
                await ask(engine)
        assert len(server.requests) == 3


async def test_leaving_counts_neither_for_nor_against_the_server() -> None:
    async with served(stalls, breaker_failures=1) as (server, engine):
        for _ in range(3):
            server.requests.clear()
            task = asyncio.ensure_future(ask(engine))
            await until(lambda: server.requests)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert engine._breaker.state == "closed"


async def test_a_reader_who_is_late_is_not_the_servers_fault() -> None:
    async with served(streams(chunk("Hello"), then=stalls), total_timeout_s=1, breaker_failures=1) as (_, engine):
        deltas = engine.generate(PROMPT, Sampling(max_tokens=20))
        await anext(deltas)
        loop = asyncio.get_running_loop()
        late_s = loop.time() + 1
        await until(lambda: loop.time() >= late_s)
        with pytest.raises(DeadlineError):
            await anext(deltas)
        assert engine._breaker.state == "closed"


async def test_closing_ends_the_wait_for_another_try() -> None:
    busy = answers("429 Too Many Requests", "", Retry_After="8")
    async with served(busy) as (server, engine):
        asked = asyncio.ensure_future(ask(engine))
        await until(lambda: not (not engine._waits._running or not server.requests))
        await engine.close()
        with pytest.raises(UnavailableError, match="being closed"):
            await asyncio.wait_for(asked, 5)


async def test_damage_anywhere_in_an_answer_gives_one_of_our_errors_or_an_answer() -> None:
    rng = random.Random(0)
    whole = head() + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*WHOLE, b""))

    def damaged() -> bytes:
        at, length = rng.randrange(len(whole)), rng.randrange(1, 8)
        return rng.choice(
            [whole[:at], whole[:at] + rng.randbytes(length) + whole[at + length :], whole[:at] + whole[at + length :]]
        )

    async with served(*(says(damaged()) for _ in range(500)), first_token_timeout_s=2, **ONCE) as (_, engine):
        for _ in range(500):
            (result,) = await asyncio.gather(ask(engine), return_exceptions=True)
            assert isinstance(result, list | RagError), result
        assert engine.load.running == 0


async def test_those_who_leave_at_any_moment_leave_nothing_behind() -> None:
    rng = random.Random(0)
    script = (stalls, streams(*WHOLE), closes, streams(*WHOLE[:1], then=stalls), answers("500 Oops", ""))

    async def any_of_them(writer: asyncio.StreamWriter, request: Any) -> None:
        await rng.choice(script)(writer, request)

    async with served(any_of_them, max_connections=20) as (server, engine):
        asked = [asyncio.ensure_future(ask(engine)) for _ in range(200)]
        while not all(task.done() for task in asked):
            rng.choice([task for task in asked if not task.done()]).cancel()
            await asyncio.sleep(rng.choice([0, 0.001]))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(result, list | RagError | asyncio.CancelledError) for result in results)
        assert (engine.load.running, engine.load.waiting, engine._waits._running) == (0, 0, set())
        server.script = [streams(*WHOLE)]
        assert text_of(await ask(engine)) == "Hello world."


async def test_the_operators_log_tells_what_the_client_does_not_see(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await outcome(answers("404 Not Found", '{"error": "model \\"tiny\\" not found, try pulling it first"}'))
    assert 'status 404: model "tiny" not found' in caplog.text
    assert "TRITONRAG_OPENAI_MODEL" in caplog.text


@given(st.text(max_size=300), st.text("sk-0123456789abcdef", min_size=1, max_size=40), st.text(max_size=300))
def test_no_excerpt_holds_the_key_or_much_of_it(before: str, key: str, after: str) -> None:
    judge = Judge(model="tiny", secret=SecretStr(key))
    assert judge.excerpt(before + key + after) == "(not shown: it holds the key)"
    assert judge.excerpt(before + key[: len(key) // 2 + 6] + after) == "(not shown: it holds the key)"


@given(st.integers(1, 2000), st.one_of(st.none(), st.floats(0, 10)), st.integers())
def test_pauses_grow_with_the_tries_up_to_a_bound_and_keep_what_was_asked(
    tries: int, asked_s: float | None, seed: int
) -> None:
    wait_s = pause_s(tries, asked_s, random.Random(seed))
    assert 0 <= wait_s - (asked_s or 0) <= min(4.0, 0.25 * 2 ** min(tries - 1, 9)) + 1e-9


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7") == 7
    assert retry_after_s(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90
    assert retry_after_s(format_datetime(now - timedelta(seconds=90), usegmt=True), now) == 0


@given(st.one_of(st.none(), st.text(), st.text("0123456789 :,JanGMT-+")))
def test_any_retry_after_is_read_without_a_fuss(header: str | None) -> None:
    wait_s = retry_after_s(header)
    assert wait_s is None or wait_s >= 0
