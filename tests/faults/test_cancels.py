"""A thousand requests are given up at random points: nothing of them is left, and those beside them are answered rightly."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import grpc

from tests.faults.slow_server import Held, running, words
from tests.server.wire import Wire, request
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_client import AsyncRagClient, RagError

CANCELS: Final = 1000
WARM_UP: Final = 200
AT_ONCE: Final = 16
RUDE: Final = 200
QUESTION: Final = "How do I parse a JSON document?"
LENGTH: Final = 20  # words, 0.2 s
SHORT: Final = 3
KINDS: Final = ("generator", "rag", "retrieve")
MOST_GROWTH_MB: Final = 16.0  # of about 700 that six processes hold; measured: 2.4
MOST_DESCRIPTORS: Final = 8


class Crowd:
    """Clients of one server that give up most of what they ask for; what went wrong with the rest is in `wrong`."""

    def __init__(self, url: str, seed: int) -> None:
        self._luck = random.Random(seed)
        self._generator, self._rag = AsyncRagClient(url), AsyncRagClient(url, model="rag")
        self.given_up, self.right, self.wrong = Counter[str](), 0, list[str]()

    async def close(self) -> None:
        await self._generator.close()
        await self._rag.close()

    async def give_up(self, count: int) -> None:
        """So many requests, AT_ONCE of them together, each left at a random point."""
        kinds = iter([KINDS[number % len(KINDS)] for number in range(count)])

        async def one_after_another() -> None:
            for kind in kinds:
                await self._give_up_one(kind)

        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))

    async def _give_up_one(self, kind: str) -> None:
        client = self._rag if kind == "rag" else self._generator
        if kind == "retrieve":
            await self._break_off(client.search(QUESTION), self._luck.uniform(0, 0.02))
        elif self._luck.random() < 1 / 3:
            await self._break_off(client.ask(QUESTION, max_tokens=LENGTH), self._luck.uniform(0, 0.3))
        else:
            await self._leave(client, self._luck.randint(0, LENGTH))
        self.given_up[kind] += 1

    async def _break_off(self, work: Any, after_s: float) -> None:
        """Cancel the task that waits for an answer, wherever it is by then."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=after_s)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _leave(self, client: AsyncRagClient, after: int) -> None:
        """Leave a stream after so many deltas, at the last one as well."""
        async with client.stream(QUESTION, max_tokens=LENGTH) as stream:
            for _ in range(after):
                await anext(stream)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Requests that are read to their end, one after the other, meanwhile."""
        wanted = [one.passage_id for one in (await self._generator.search(QUESTION)).passages]
        ended = asyncio.Event()
        task = asyncio.create_task(self._ask_on(wanted, ended))
        try:
            yield
        finally:
            ended.set()
            await task

    async def _ask_on(self, wanted: list[int], ended: asyncio.Event) -> None:
        while not ended.is_set():
            try:
                found = await self._generator.search(QUESTION)
                answers = [await client.ask(QUESTION, max_tokens=SHORT) for client in (self._generator, self._rag)]
            except RagError as error:
                self.wrong.append(str(error))
                continue
            right = [one.passage_id for one in found.passages] == wanted
            right &= all(answer.text == words(SHORT) for answer in answers)
            right &= all([one.passage_id for one in answer.sources] == wanted for answer in answers)
            if right:
                self.right += 1
            else:
                self.wrong.append(f"{found} {answers}")


async def test_after_a_thousand_cancels_nothing_is_left(slow: RunningServer, slow_wire: Wire) -> None:
    crowd = Crowd(slow.grpc_url, seed=1)
    async with crowd.beside():
        await crowd.give_up(WARM_UP)
    assert await asyncio.to_thread(wait_until, lambda: running(slow_wire) == 0)
    before = await asyncio.to_thread(Held.now, slow)
    async with crowd.beside():
        await crowd.give_up(CANCELS)
    assert await asyncio.to_thread(wait_until, lambda: running(slow_wire) == 0)
    after = await asyncio.to_thread(Held.now, slow)
    await crowd.close()
    assert crowd.wrong == []
    assert crowd.right > 20
    assert sum(crowd.given_up.values()) == CANCELS + WARM_UP
    assert after.megabytes - before.megabytes < MOST_GROWTH_MB, (before, after)
    assert after.descriptors - before.descriptors <= MOST_DESCRIPTORS, (before, after)


def test_clients_that_hang_up_in_the_middle_free_their_generations(slow_wire: Wire) -> None:
    """What a client of somebody else's does, or one that is killed. docs/triton-notes.md says what it can do to this Triton."""
    luck = random.Random(2)
    for number in range(RUDE):
        message = request("generator", {"text_input": QUESTION, "stream": True, "max_tokens": LENGTH})
        call = slow_wire.stub.ModelStreamInfer(iter([message]), timeout=20)
        for _ in range(luck.randint(0, LENGTH // 2)):
            next(call)
        call.cancel()
        assert call.code() is grpc.StatusCode.CANCELLED, number
    assert wait_until(lambda: running(slow_wire) == 0)
    answer = slow_wire.ask(request("generator", {"text_input": QUESTION, "max_tokens": SHORT}))
    assert isinstance(answer, dict)
