"""64 streams of a language model at once, some cancelled, some late, some read slowly: the others read as if they were alone."""

import asyncio
import random

import psutil

from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_client import AsyncRagClient, DeadlineError, Timeouts

STREAMS = 64
TOKENS = 48
LONG = 2000
SUBJECTS = ("a JSON document", "a CSV file", "a path", "a logger", "a heap", "a median", "a socket", "an archive")
QUESTIONS = [f"How do I use {subject} in way {number}?" for number in range(3) for subject in SUBJECTS]


def processes(server: RunningServer) -> list[psutil.Process]:
    triton = psutil.Process(server.pid)
    return [triton, *triton.children(recursive=True)]


def private_bytes(server: RunningServer) -> int:
    return sum(process.memory_full_info().uss for process in processes(server))


def threads(server: RunningServer) -> int:
    return sum(process.num_threads() for process in processes(server))


async def read(client: AsyncRagClient, question: str, *, pause_s: float = 0.0) -> str:
    texts = []
    async for delta in client.stream(question, max_tokens=TOKENS, num_passages=1):
        texts.append(delta.text)
        await asyncio.sleep(pause_s)
    return "".join(texts)


async def leave(client: AsyncRagClient, question: str, after: int) -> None:
    async with client.stream(question, max_tokens=LONG, num_passages=1) as stream:
        async for _ in stream:
            after -= 1
            if after <= 0:
                break


async def be_late(client: AsyncRagClient, question: str, timeout_s: float) -> bool:
    """Whether the time was too short, as it nearly always is."""
    limits = Timeouts(connect_s=timeout_s, total_s=timeout_s)
    try:
        await client.ask(question, max_tokens=LONG, num_passages=1, timeouts=limits)
    except DeadlineError:
        return True
    return False


async def one_round(client: AsyncRagClient, rng: random.Random) -> dict[str, str]:
    """STREAMS at once; the texts of those that should complete, by question."""
    completing: dict[str, asyncio.Task[str]] = {}
    leaving: list[asyncio.Task[None]] = []
    late: list[asyncio.Task[bool]] = []
    for number in range(STREAMS):
        question = QUESTIONS[number % len(QUESTIONS)]
        if number < len(QUESTIONS):
            completing[question] = asyncio.create_task(read(client, question, pause_s=0.02 if number % 4 == 0 else 0.0))
        elif number % 2:
            leaving.append(asyncio.create_task(leave(client, f"{question} {number}", rng.randint(1, 20))))
        else:
            late.append(asyncio.create_task(be_late(client, f"{question} {number}", rng.uniform(0.1, 0.5))))
    texts = dict(zip(completing, await asyncio.gather(*completing.values()), strict=True))
    await asyncio.gather(*leaving)
    assert any(await asyncio.gather(*late))
    return texts


async def test_everyone_who_stays_gets_what_a_lone_run_gives_and_nothing_stays_behind(
    llm_server: RunningServer, llm_wire: Wire
) -> None:
    rng = random.Random(3)
    async with AsyncRagClient(llm_server.grpc_url) as client:
        lone = {question: await read(client, question) for question in QUESTIONS}
        assert len(set(lone.values())) > len(QUESTIONS) // 2  # else there would be little to mix up
        assert await one_round(client, rng) == lone  # grows to the working size too
        assert wait_until(lambda: idle(llm_wire))
        bytes_before, threads_before = private_bytes(llm_server), threads(llm_server)
        for _ in range(3):
            assert await one_round(client, rng) == lone
    assert wait_until(lambda: idle(llm_wire)), "the engine works on although everybody has left"
    # One pool of the generator grows with use, to its 64; a thread left by each stream would be many more.
    assert threads(llm_server) <= threads_before + 64
    assert private_bytes(llm_server) < bytes_before * 1.05 + 16 * 2**20


def idle(wire: Wire) -> bool:
    return wire.metric("tritonrag_generations_running") == 0 and wire.metric("tritonrag_engine_generations") == 0
