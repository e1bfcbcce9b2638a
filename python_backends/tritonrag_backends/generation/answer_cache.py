"""Answers that are known already, or in the making: a question is answered by one generation."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

from tritonrag_backends.generation.cache_settings import CacheSettings
from tritonrag_backends.generation.engine import Delta
from tritonrag_backends.generation.in_flight import InFlight, SharedAnswer
from tritonrag_backends.generation.known_answer import AnswerStore, KnownAnswer
from tritonrag_backends.generation.memory_store import MemoryStore
from tritonrag_backends.generation.trail import CacheOutcome
from tritonrag_client.errors import UnavailableError

Begin = Callable[[], AsyncGenerator[Delta, None]]


class AnswerCache:
    """Asks its store, then what is being generated now, then begins; keeps what is complete. Lives in one event loop.

    Without a store nothing is kept, and identical questions that are asked at once still share a generation.
    """

    def __init__(self, store: AnswerStore | None) -> None:
        self._store = store
        self._in_flight = InFlight()

    def __len__(self) -> int:
        """Answers in the making that have a key."""
        return len(self._in_flight)

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened in the store how often (`evicted`, `timeout`, `odd_value`, ...): each store's own words."""
        return {} if self._store is None else self._store.counts

    def answers(self, key: str | None, begin: Begin) -> "Answers":
        """The deltas of the answer under `key`; None: of `begin()` as they are. A known answer is one delta.

        Raises what `begin()` raises. Keep the fallback outside: what one asker is content with, another (`strict`) is not.
        """
        return Answers(self._store, self._in_flight, key, begin)

    async def close(self) -> None:
        """End what is in the making, and free the store."""
        await self._in_flight.close()
        if self._store is not None:
            await self._store.close()


class Answers(AsyncIterator[Delta]):
    """One asker's deltas, and how they were come by; to be closed, as a generator is.

    `outcome`, right from the first delta on: `hit` the store knew it, `shared` another asker's generation, `miss` a generation of
    its own, `off` the same without a store or without a key.
    """

    def __init__(self, store: AnswerStore | None, in_flight: InFlight, key: str | None, begin: Begin) -> None:
        self._store, self._in_flight = store, in_flight
        self._deltas = begin() if key is None else self._shared(key, begin)
        self.outcome: CacheOutcome = "off"

    async def __anext__(self) -> Delta:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        """Leave; whoever leaves last ends the generation."""
        await self._deltas.aclose()

    async def _shared(self, key: str, begin: Begin) -> AsyncGenerator[Delta, None]:
        shared, joined = self._in_flight.join(key, lambda shared: self._produce(shared, key, begin))
        async with aclosing(shared.read()) as deltas:
            async for delta in deltas:
                self.outcome = self._came_by(shared, joined=joined)
                yield delta

    def _came_by(self, shared: SharedAnswer, *, joined: bool) -> CacheOutcome:
        if shared.known:
            return "hit"
        if joined:
            return "shared"
        return "off" if self._store is None else "miss"

    async def _produce(self, shared: SharedAnswer, key: str, begin: Begin) -> None:
        """The store is asked in here, so that those who ask the same at once wait for a slow store once, together."""
        known = await self._store.get(key) if self._store is not None else None
        if known is not None:
            shared.known = True
            shared.append(Delta(text=known.text, finish_reason=known.finish_reason, usage=known.usage))
            return
        async with aclosing(begin()) as deltas:
            async for delta in deltas:
                shared.append(delta)
                if delta.finish_reason is not None:
                    break
        if self._store is not None and (answer := _worth_keeping(shared.deltas)) is not None:
            await self._store.put(key, answer)


def open_store(settings: CacheSettings) -> AnswerStore | None:
    """What the settings say, None for `off`; nothing is connected yet.

    Raises BadRequestError for a Redis URL that is none, UnavailableError where the library is missing.
    """
    match settings.store:
        case "off":
            return None
        case "memory":
            return MemoryStore(settings.max_bytes, settings.ttl_s)
        case "redis":
            try:
                from tritonrag_backends.generation.redis_store import open_redis  # noqa: PLC0415 - only where it is wanted
            except ModuleNotFoundError as error:
                raise UnavailableError(
                    f"TRITONRAG_CACHE_STORE is redis, and its library is missing ({error.name}); pip install 'tritonrag[redis]'"
                ) from error
            return open_redis(settings)


def _worth_keeping(deltas: Sequence[Delta]) -> KnownAnswer | None:
    """A complete answer in which nothing was given up."""
    finish_reason = deltas[-1].finish_reason if deltas else None
    if finish_reason not in {"stop", "length"} or any(delta.degraded for delta in deltas):
        return None
    return KnownAnswer(
        text="".join(delta.text for delta in deltas),
        finish_reason="stop" if finish_reason == "stop" else "length",
        usage=deltas[-1].usage,
    )
