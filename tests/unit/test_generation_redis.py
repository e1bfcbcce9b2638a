"""With Redis behind the answer cache an answer is right and soon, whatever Redis does."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.unit.redis_servers import RedisServer, answering, in_between, redis_server

from tritonrag_backends.generation.answer_cache import AnswerCache, open_store
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.generation.engine import Delta, Usage
from tritonrag_backends.generation.known_answer import KnownAnswer, encode
from tritonrag_backends.generation.redis_store import RedisStore, _Secrets
from tritonrag_backends.generation.seldom_log import SeldomLog
from tritonrag_client.errors import BadRequestError, UnavailableError

ANSWER = KnownAnswer(
    text="Grüße 你好 [1]", finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)
)
NAME = "tritonrag:answer:1:"
PATIENT_S = 20.0  # where the test is not about time: a busy machine must not fail it
SHORT_S = 0.05


@pytest.fixture(scope="module")
def _server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(_server: RedisServer) -> RedisServer:
    with _server.client() as client:
        client.flushall()
    return _server


@asynccontextmanager
async def store_at(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[RedisStore]:
    opened = open_store(CacheSettings(store="redis", redis_url=SecretStr(url), redis_timeout_s=timeout_s, ttl_s=60))
    assert isinstance(opened, RedisStore)
    try:
        yield opened
    finally:
        await opened.close()
        await asyncio.sleep(0)
        assert not opened._pending


async def kept(store: RedisStore) -> None:
    while store._pending:
        await asyncio.wait(set(store._pending))


async def test_what_was_put_is_known_to_every_server_for_its_time(server: RedisServer) -> None:
    async with store_at(server.url) as one, store_at(server.url) as other:
        assert await other.get("k") is None
        await one.put("k", ANSWER)
        await kept(one)
        assert await other.get("k") == ANSWER
    with server.client() as client:
        assert client.keys() == [f"{NAME}k".encode()]
        assert 50_000 < int(str(client.pttl(f"{NAME}k"))) <= 60_000


async def test_only_one_of_two_servers_generates(server: RedisServer) -> None:
    begun = 0

    async def engine() -> AsyncGenerator[Delta, None]:
        nonlocal begun
        begun += 1
        yield Delta(text="a")
        yield Delta(text="b", finish_reason="stop")

    outcomes = []
    async with store_at(server.url) as one, store_at(server.url) as other:
        for store in (one, other):
            async with aclosing(AnswerCache(store).answers("k", engine)) as answers:
                assert "".join([delta.text async for delta in answers]) == "ab"
            outcomes.append(answers.outcome)
            await kept(store)
    assert (begun, outcomes) == (1, ["miss", "hit"])


def _forged(**changes: object) -> bytes:
    return json.dumps({**json.loads(encode("k", ANSWER)), **changes}).encode()


@pytest.mark.parametrize(
    "value",
    [
        b"\x00",
        b"null",
        b"[]",
        b"{}",
        b"not JSON",
        b"[" * 100_000,
        b"9" * 10_000,
        b"\xff\xfe",
        encode("k", ANSWER)[:-1],
        encode("k", ANSWER)[1:],
        encode("another key", ANSWER),
        _forged(key="another key"),
        _forged(text="something else"),
        _forged(version=2),
        _forged(sha256=""),
        _forged(sha256=None),
        _forged(text=None),
        _forged(finish_reason="error"),
        _forged(more=1),
        encode("k", KnownAnswer(text="a", finish_reason="stop")) + b" trailing",
        b"x" * (8 * 2**20),
    ],
    ids=lambda value: f"{value[:30]!r}-{len(value)}",
)
async def test_a_value_that_is_none_of_ours_is_a_miss_and_counted(server: RedisServer, value: bytes) -> None:
    with server.client() as client:
        client.set(f"{NAME}k", value)
    async with store_at(server.url) as store:
        assert await store.get("k") is None
        assert store.counts == {"odd_value": 1}
        await store.put("k", ANSWER)
        await kept(store)
        assert await store.get("k") == ANSWER


async def test_a_key_of_another_type_is_a_miss(server: RedisServer) -> None:
    with server.client() as client:
        client.rpush(f"{NAME}k", "a")
    async with store_at(server.url) as store:
        for _ in range(5):
            assert await store.get("k") is None
        await store.put("k", ANSWER)
        await kept(store)
        assert await store.get("k") == ANSWER  # the server is not at fault, and not left alone
        assert store.counts == {"refused": 5}


async def test_a_full_server_still_gives_what_it_has() -> None:
    with redis_server("--maxmemory-policy", "noeviction") as full:
        async with store_at(full.url) as store:
            await store.put("k", ANSWER)
            await kept(store)
            with full.client() as client:
                client.config_set("maxmemory", 1)
            for _ in range(5):
                await store.put("other", ANSWER)
            await kept(store)
            assert store.counts == {"refused": 5}
            assert await store.get("k") == ANSWER


async def test_a_read_only_replica_gives_what_it_has() -> None:
    with redis_server() as server:
        async with store_at(server.url) as store:
            await store.put("k", ANSWER)
            await kept(store)
            with server.client() as client:
                client.replicaof("127.0.0.1", 1)
            await store.put("other", ANSWER)
            await kept(store)
            assert store.counts == {"refused": 1}
            assert await store.get("k") == ANSWER


@pytest.mark.parametrize("login", ["", "?password=wr%2Fong-secret"])
async def test_without_the_right_password_nothing_is_known_and_the_wrong_one_stays_secret(
    login: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server("--requirepass", "right") as server:
        async with store_at(f"unix://{server.socket}{login}") as store:
            await store.put("k", ANSWER)
            assert await store.get("k") is None
            await kept(store)
            assert set(store.counts) <= {"connection", "refused"}
            assert "Redis failed" in caplog.text
            for secret in ("wr/ong-secret", "wr%2Fong-secret"):
                assert secret not in caplog.text
        async with store_at(f"unix://{server.socket}?password=right") as store:
            await store.put("k", ANSWER)
            await kept(store)
            assert await store.get("k") == ANSWER


async def test_a_server_that_is_not_there_is_asked_three_times_then_left_alone_then_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    with redis_server() as server:
        async with store_at(server.url) as store:
            store._breaker._clock = lambda: now_s
            await store.put("k", ANSWER)
            await kept(store)
            server.kill()
            for _ in range(5):
                assert await store.get("k") is None
            assert store.counts == {"connection": 3, "left_alone": 2}
            assert len(caplog.records) == 1  # not one for each
            server.start()
            assert await store.get("k") is None
            now_s = 6.0
            await store.put("k", ANSWER)
            await kept(store)
            assert await store.get("k") == ANSWER


async def test_a_slow_server_costs_no_more_than_its_time_and_gives_no_answer_to_another_question(
    server: RedisServer,
) -> None:
    async with in_between(server) as between, store_at(server.url) as filler:
        for n in range(10):
            await filler.put(f"k{n}", KnownAnswer(text=f"answer {n}", finish_reason="stop"))
        await kept(filler)
        async with store_at(between.url, SHORT_S) as store:
            store._breaker._limit = 1_000
            between.open.clear()
            began_s = time.monotonic()
            found = await asyncio.gather(*(store.get(f"k{n}") for n in range(10)))
            assert found == [None] * 10
            assert time.monotonic() - began_s < 20 * SHORT_S
            assert store.counts["timeout"] == 10
            between.open.set()  # answers to questions of before may come now
            store._timeout_s = PATIENT_S
            for n in reversed(range(10)):
                known = await store.get(f"k{n}")
                assert known is None or known.text == f"answer {n}"


async def test_asking_can_be_cancelled_and_the_next_answer_is_right(server: RedisServer) -> None:
    async with in_between(server) as between, store_at(between.url) as store:
        await store.put("k", ANSWER)
        await kept(store)
        between.open.clear()
        asking = asyncio.ensure_future(store.get("other"))
        await asyncio.wait({asking}, timeout=0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        between.open.set()
        assert await store.get("k") == ANSWER
        assert store.counts == {}


@pytest.mark.parametrize("most_bytes", [0, 1, 5, 20, 100])
async def test_a_connection_that_breaks_off_is_a_miss(server: RedisServer, most_bytes: int) -> None:
    async with in_between(server) as between, store_at(between.url) as store:
        await store.put("k", ANSWER)
        await kept(store)
        between.most_bytes = most_bytes
        assert await store.get("k") is None
        assert store.counts == {"connection": 1}
        between.most_bytes = None
        assert await store.get("k") == ANSWER


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\r\n",
    b":abc\r\n",
    b":7\r\n",
    b"+OK\r\n",
    b"$abc\r\n",
    b"$-7\r\nx\r\n",
    b"$3\r\nabcdefgh\r\n",
    b"$99999999999999999999\r\nx",
    b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*1\r\n" * 20_000,
    b"*-3\r\n",
    b"-ERR \xff\xfe\r\n",
    b"-LOADING wait\r\n",
    b"-\r\n",
    b"x" * 200_000,
    b"$5\r\nhello\r\n" * 10,
    b"%1\r\n+a\r\n+b\r\n",
    b">2\r\n+invalidate\r\n+b\r\n",
]


@pytest.mark.parametrize("reply", GARBAGE, ids=lambda reply: repr(reply[:16]))
async def test_garbage_is_a_miss(reply: bytes) -> None:
    async with answering(reply) as url, store_at(url, 0.2) as store:
        store._breaker._limit = 1_000
        for _ in range(3):
            assert await store.get("k") is None
        await store.put("k", ANSWER)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reply=st.lists(st.sampled_from([b"$", b"*", b":", b"-", b"+", b"\r\n", b"1", b"9", b"abc", b"\xff", b"_", b"%"]))
)
def test_no_bytes_make_it_raise(reply: list[bytes]) -> None:
    async def ask() -> None:
        async with answering(b"".join(reply)) as url, store_at(url, 0.02) as store:
            assert await store.get("k") is None
            assert await store.get("k") is None

    asyncio.run(ask())


async def test_puts_wait_in_a_bounded_number_and_nobody_waits_for_them(server: RedisServer) -> None:
    async with in_between(server) as between, store_at(between.url, 1) as store:
        between.open.clear()
        began_s = time.monotonic()
        for n in range(200):
            await store.put(f"k{n}", ANSWER)
        assert time.monotonic() - began_s < 1
        assert len(store._pending) == 64
        assert store.counts["dropped"] == 136


async def test_an_answer_that_is_too_large_is_not_kept(server: RedisServer) -> None:
    async with store_at(server.url) as store:
        await store.put("k", KnownAnswer(text="x" * 2**20, finish_reason="stop"))
        await kept(store)
        assert await store.get("k") is None
        assert store.counts == {"too_large": 1}


@pytest.mark.parametrize("url", ["", "http://h", "redis://u:secret@h:abc/0", "redis://:secret@h/?unknown=1"])
def test_a_url_that_is_none_is_refused_by_the_variables_name_without_the_secret(url: str) -> None:
    with pytest.raises(BadRequestError, match="TRITONRAG_CACHE_REDIS_URL") as refused:
        open_store(CacheSettings(store="redis", redis_url=SecretStr(url)))
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tritonrag_backends.generation.redis_store")
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UnavailableError, match=r"pip install 'tritonrag\[redis\]'"):
        open_store(CacheSettings(store="redis"))


def test_a_warning_that_goes_on_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    log = SeldomLog(logging.getLogger("test"), clock=lambda: now_s)
    for _ in range(3):
        log.tell("down")
    now_s = 60.0
    log.tell("down")
    assert caplog.messages == ["down", "down (2 more like it since the last message)"]


@pytest.mark.parametrize("url", ["redis://me:p%2Fss@h", "redis://h?username=me&password=p%2Fss", "unix://me:p%2Fss@/s"])
def test_secrets_are_cut_out_of_what_a_server_says(url: str) -> None:
    told = _Secrets(url).without(ValueError(f"{url}: hello me, p/ss or p%2Fss is wrong"))
    assert "p/ss" not in told
    assert "p%2Fss" not in told
    assert "hello ***, *** or *** is wrong" in told


async def test_nothing_of_a_password_is_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with store_at("redis://user%40x:p%2Fss@127.0.0.1:1/0") as store:
        assert await store.get("k") is None
        assert "p/ss" not in caplog.text + repr(store)
        assert "p%2Fss" not in caplog.text
        assert "user" not in caplog.text
        assert "connection" in caplog.text
