"""Answers kept in Redis, so that several servers share them and a restart forgets none.

Redis is a help and never a need. Whatever it does, an answer is right and comes at most `timeout_s` later; after three
failures in a row it is left alone for a few seconds.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tritonrag_backends.generation.breaker import CircuitBreaker
from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.generation.known_answer import KnownAnswer, decode, encode
from tritonrag_backends.generation.seldom_log import SeldomLog
from tritonrag_client.errors import BadRequestError, UnavailableError

_LOG: Final = logging.getLogger(__name__)
_PREFIX: Final = "tritonrag:answer:1:"
_MOST_BYTES: Final = 2**20  # of one value; an answer of 4,096 tokens, the default limit, is about 20 KB
_MOST_PENDING: Final = 64
_CONNECTIONS: Final = 16
_FAILURES: Final = 3
_LEFT_ALONE_S: Final = 5.0
# Beside Redis' own errors what its client lets through where a server does not speak the protocol (a test sends such bytes).
_FAULTS: Final = (RedisError, OSError, ValueError, RecursionError)


def open_redis(settings: CacheSettings) -> "RedisStore":
    """Connects with the first question. Raises BadRequestError for a URL that is none; it is not repeated in the message."""
    url = settings.redis_url.get_secret_value()
    try:
        return RedisStore(_pool(url, settings.redis_timeout_s), _Secrets(url), settings)
    except (RedisError, ValueError, TypeError):
        raise BadRequestError(
            "TRITONRAG_CACHE_REDIS_URL is not a URL of Redis; write redis://[user:password@]host:port/db, rediss:// or unix://"
        ) from None


class RedisStore:
    """Implements `AnswerStore`; lives in one event loop.

    `counts`: `timeout`, `connection`, `protocol` (failures of the server), `refused` (it answered with an error), `odd_value`
    (not what `put` wrote), `left_alone`, `too_large`, `dropped` (too many puts were waiting).
    """

    def __init__(
        self,
        pool: redis_asyncio.ConnectionPool,
        secrets: "_Secrets",
        settings: CacheSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._client = redis_asyncio.Redis(connection_pool=pool)
        self._secrets = secrets
        self._timeout_s = settings.redis_timeout_s
        self._ttl_ms = max(1, round(settings.ttl_s * 1000))
        self._breaker = CircuitBreaker("Redis", failures=_FAILURES, open_s=_LEFT_ALONE_S, clock=clock)
        self._log = SeldomLog(_LOG)
        self._pending: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()

    async def get(self, key: str) -> KnownAnswer | None:
        """The answer; None where there is none, or what there is can't be trusted, or Redis does not give it in time."""
        # GETRANGE rather than GET: a value of any size may stand there, and would have to be taken in.
        data = await self._call(lambda: self._client.getrange(_PREFIX + key, 0, _MOST_BYTES))
        if not data:
            return None
        try:
            return _read(key, data)
        except ValueError as error:
            self.counts["odd_value"] += 1
            self._log.tell(f"a value in Redis is not an answer of ours: {error}; the question is answered anew")
            return None

    async def put(self, key: str, answer: KnownAnswer) -> None:
        """Keep it, in the background."""
        data = encode(key, answer)
        if len(data) > _MOST_BYTES:
            self.counts["too_large"] += 1
        elif len(self._pending) >= _MOST_PENDING:
            self.counts["dropped"] += 1
        else:
            task = asyncio.get_running_loop().create_task(self._put(key, data))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Wait for what is being kept, which `timeout_s` bounds, and disconnect."""
        if self._pending:
            _, late = await asyncio.wait(set(self._pending), timeout=self._timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        try:
            await self._pool.disconnect()
        except (*_FAULTS, RuntimeError) as error:  # RuntimeError: the event loop of the connections is gone
            self._log.tell(f"disconnecting from Redis failed: {self._secrets.without(error)}")

    async def _put(self, key: str, data: bytes) -> None:
        await self._call(lambda: self._client.set(_PREFIX + key, data, px=self._ttl_ms))

    async def _call(self, command: Callable[[], Any]) -> object:
        """What Redis answers; None where it does not, or should not be asked."""
        try:
            attempt = self._breaker.admit()
        except UnavailableError:
            self.counts["left_alone"] += 1
            return None
        with attempt:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer: object = await command()
            except ResponseError as error:  # it is there, and will not: full, read-only, a key of another type
                attempt.succeeded()
                self._failed("refused", error)
            except _FAULTS as error:
                attempt.failed()
                self._failed(_kind(error), error)
            else:
                attempt.succeeded()
                return answer
        return None

    def _failed(self, kind: str, error: BaseException) -> None:
        self.counts[kind] += 1
        self._log.tell(
            f"the answer cache's Redis failed ({kind}): {self._secrets.without(error)}; answers are made without it"
        )


class _Secrets:
    """What of a URL must not be seen."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        secrets = {parts.password or "", parts.username or ""}
        secrets.update(*(options.get(name, []) for name in ("username", "password")))
        hidden = {url, parts.query, *secrets, *map(unquote, secrets), *(quote(one, safe="") for one in secrets)}
        self._hidden = sorted(hidden - {""}, key=len, reverse=True)

    def without(self, error: BaseException) -> str:
        """The error's kind and text, short, without them."""
        text = f"{type(error).__name__}: {error}"
        for secret in self._hidden:
            text = text.replace(secret, "***")
        return text[:200]


def _pool(url: str, timeout_s: float) -> redis_asyncio.ConnectionPool:
    pool = redis_asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),  # the breaker says when it is tried again
        protocol=2,  # asks for no handshake
    )
    pool.make_connection()  # type: ignore[no-untyped-call]  # does not connect; refuses options in the URL that are none
    return pool


def _read(key: str, data: object) -> KnownAnswer:
    if not isinstance(data, bytes):
        raise ValueError("it is not bytes")  # noqa: TRY004 - one error for all that it may be
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    return decode(key, data)


def _kind(error: BaseException) -> str:
    if isinstance(error, (TimeoutError, redis_asyncio.TimeoutError)):
        return "timeout"
    return "connection" if isinstance(error, (OSError, redis_asyncio.ConnectionError)) else "protocol"
