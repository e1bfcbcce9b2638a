"""A steady load by every way to an answer, whole and streamed; what was said is judged once it is known what was right when.

with Steady([url]) as steady:
    ...change something, wait for what should come...
assert faults(steady.asked, stays) == []  # tests.faults.editions
"""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self, get_args

from tests.faults.load import QUESTIONS
from tritonrag_client import AsyncRagClient, RetryPolicy, ScoredPassage, Source, Timeouts
from tritonrag_client.contract import Passage

RATE_PER_S: Final = 20
DEADLINE_S: Final = 10.0
MAX_TOKENS: Final = 200
Way = Literal["search", "ask", "stream", "ask_rag", "stream_rag"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a client was told. A search tells its `version` and no text, an answer a text and no version."""

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    passages: tuple[Passage, ...]
    degraded: str
    version: int | None = None
    text: str = ""
    finish_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, in seconds of time.monotonic. `said` is None where it failed; `error` tells how."""

    way: Way
    question: str
    began_s: float
    ended_s: float
    said: Said | None = None
    error: str = ""


class Steady:
    """RATE_PER_S requests a second, of clients that try nothing again at the same server; a context manager."""

    def __init__(self, urls: list[str], *, max_tokens: int = MAX_TOKENS) -> None:
        self.asked: list[Asked] = []
        self._urls, self._max_tokens = urls, max_tokens
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_on()), name="steady", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(3 * DEADLINE_S)
        assert not self._thread.is_alive(), "a request does not end"

    def ended_since(self, since_s: float, *, each: int = 2) -> bool:
        """Whether requests that began after a time have ended, well or not, so many in every way."""
        seen = Counter(one.way for one in list(self.asked) if one.began_s > since_s)
        return all(seen[way] >= each for way in WAYS)

    async def _ask_on(self) -> None:
        timeouts, once = Timeouts(connect_s=2.0, total_s=DEADLINE_S), RetryPolicy(attempts=1)
        async with (
            AsyncRagClient(self._urls, timeouts=timeouts, retry=once) as client,
            AsyncRagClient(self._urls, timeouts=timeouts, retry=once, model="rag") as rag,
        ):
            works: dict[Way, Callable[[str], Awaitable[Said]]] = {
                "search": partial(_search, client),
                "ask": partial(_ask, client, self._max_tokens),
                "stream": partial(_stream, client, self._max_tokens),
                "ask_rag": partial(_ask, rag, self._max_tokens),
                "stream_rag": partial(_stream, rag, self._max_tokens),
            }
            turns = ((way, works[way], question) for question in itertools.cycle(QUESTIONS) for way in WAYS)
            tasks: set[asyncio.Task[None]] = set()
            next_s = time.monotonic()
            while not self._ended.is_set():
                tasks.add(task := asyncio.create_task(self._keep(*next(turns))))
                task.add_done_callback(tasks.discard)
                next_s = max(next_s + 1 / RATE_PER_S, time.monotonic() - 1.0)
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _keep(self, way: Way, ask: Callable[[str], Awaitable[Said]], question: str) -> None:
        began_s, said, error = time.monotonic(), None, ""
        try:
            said = await ask(question)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test is to see it
            error = repr(failure)
        self.asked.append(
            Asked(way=way, question=question, began_s=began_s, ended_s=time.monotonic(), said=said, error=error)
        )


async def _search(client: AsyncRagClient, question: str) -> Said:
    found = await client.search(question)
    return _said(found.passages, degraded=found.degraded, version=found.index_version)


async def _ask(client: AsyncRagClient, max_tokens: int, question: str) -> Said:
    answer = await client.ask(question, max_tokens=max_tokens)
    return _said(answer.sources, degraded=answer.degraded, text=answer.text, finish_reason=answer.finish_reason)


async def _stream(client: AsyncRagClient, max_tokens: int, question: str) -> Said:
    deltas = [delta async for delta in client.stream(question, max_tokens=max_tokens)]
    return _said(
        [source for delta in deltas for source in delta.sources],
        degraded="; ".join(delta.degraded for delta in deltas if delta.degraded),
        text="".join(delta.text for delta in deltas),
        finish_reason=deltas[-1].finish_reason,
    )


def _said(
    rows: Sequence[ScoredPassage | Source],
    *,
    degraded: str,
    version: int | None = None,
    text: str = "",
    finish_reason: str = "",
) -> Said:
    return Said(
        ids=tuple(row.passage_id for row in rows),
        scores=tuple(row.score for row in rows),
        passages=tuple(row.passage for row in rows),
        degraded=degraded,
        version=version,
        text=text,
        finish_reason=finish_reason,
    )
