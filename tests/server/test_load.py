"""Many at once, some of them leaving early: nobody else notices, and nothing stays behind."""

import asyncio
import random
import re

import psutil
import pytest

from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_client import Answer, AsyncRagClient

QUESTIONS = [
    "How do I parse a JSON document?",
    "How can I read rows from a CSV file?",
    "Which function gives the largest elements?",
    "How do I set the level of a logger?",
    "What does a context manager do?",
    "How is the median computed?",
]
CITED = re.compile(r"\S.*? \[\d+\]")
MODELS = ("embedder", "retriever", "generator", "retrieve", "rag")


def server_bytes(server: RunningServer) -> int:
    """Private memory of Triton and its stubs."""
    triton = psutil.Process(server.pid)
    return sum(process.memory_full_info().uss for process in (triton, *triton.children(recursive=True)))


async def ask_all(client: AsyncRagClient, count: int, concurrency: int) -> list[Answer]:
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int) -> Answer:
        async with gate:
            return await client.ask(QUESTIONS[number % len(QUESTIONS)], max_tokens=200)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def cancel_at_random(client: AsyncRagClient, done: asyncio.Event, rng: random.Random) -> int:
    """Ask and leave after a random while, or in the middle of the stream, until told to end; returns how often."""
    count = 0
    while not done.is_set():
        count += 1
        task = asyncio.create_task(client.ask(rng.choice(QUESTIONS)))
        await asyncio.wait([task], timeout=rng.random() * 0.1)
        task.cancel()
        await asyncio.wait([task])
        async with client.stream(rng.choice(QUESTIONS)) as stream:
            async for _ in stream:
                break
    return count


@pytest.mark.parametrize("model", ["generator", "rag"])
async def test_500_questions_while_another_client_cancels(server: RunningServer, wire: Wire, model: str) -> None:
    rng = random.Random(7)
    async with (
        AsyncRagClient(server.grpc_url, model=model) as client,
        AsyncRagClient(server.grpc_url, model=model) as other,
    ):
        expected = {question: await client.ask(question, max_tokens=200) for question in QUESTIONS}
        await ask_all(client, 200, 32)  # grow to the working size first
        before, done = server_bytes(server), asyncio.Event()
        canceller = asyncio.create_task(cancel_at_random(other, done, rng))
        answers = await ask_all(client, 500, 32)
        done.set()
        assert await canceller > 0
    for number, answer in enumerate(answers):
        wanted = expected[QUESTIONS[number % len(QUESTIONS)]]
        assert (answer.finish_reason, answer.degraded) == (wanted.finish_reason, "")
        assert [source.passage_id for source in answer.sources] == [source.passage_id for source in wanted.sources]
        # The order hangs on the best score alone, and int8 rounds a vector a little differently in other company.
        assert sorted(CITED.findall(answer.text)) == sorted(CITED.findall(wanted.text))
    for name in MODELS:
        assert wait_until(lambda name=name: wire.metric("nv_inference_pending_request_count", model=name) == 0), name
    assert wait_until(lambda: wire.metric("tritonrag_generations_running") == 0)
    assert server_bytes(server) < before * 1.1 + 16 * 2**20
