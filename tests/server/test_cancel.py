"""Whoever leaves, is stopped or runs late frees the generation on the server; the others go on."""

import asyncio
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.wire import Wire, request, strings
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag_backends.settings import Settings
from tritonrag_client import AsyncRagClient, DeadlineError, NotFoundError, RagClient, Timeouts

QUESTION = "How do I parse a JSON document?"
LONG = 4000  # words, 40 s: what runs on would still run when the test asks
SHORT = 20
PATHS = ("generator", "rag")


@pytest.fixture(scope="module")
def slow_server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("slow")
    for model in CHECKOUT_REPOSITORY.iterdir():
        if model.name != "generator":
            (repository / model.name).symlink_to(model)
    (repository / "generator" / "1").mkdir(parents=True)
    shutil.copy(CHECKOUT_REPOSITORY / "generator" / "config.pbtxt", repository / "generator")
    shutil.copy(Path(__file__).with_name("slow_generator.py"), repository / "generator" / "1" / "model.py")
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=settings, model_repository=repository))
    assert triton.check_left_behind() == []


@pytest.fixture
def slow_wire(slow_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(slow_server)
    yield connection
    assert wait_until(lambda: running(connection) == 0), "a generation goes on after its test"
    connection.close()


def running(wire: Wire) -> float:
    return wire.metric("tritonrag_generations_running")


@pytest.mark.parametrize("model", PATHS)
def test_leaving_a_stream_early_stops_the_generation(slow_server: RunningServer, slow_wire: Wire, model: str) -> None:
    with RagClient(slow_server.grpc_url, model=model) as client, client.stream(QUESTION, max_tokens=LONG) as stream:
        next(iter(stream))
        assert running(slow_wire) == 1
    assert wait_until(lambda: running(slow_wire) == 0)


@pytest.mark.parametrize("model", PATHS)
async def test_leaving_an_async_stream_early_stops_the_generation(
    slow_server: RunningServer, slow_wire: Wire, model: str
) -> None:
    async with AsyncRagClient(slow_server.grpc_url, model=model) as client:
        async with client.stream(QUESTION, max_tokens=LONG) as stream:
            async for _ in stream:
                break
        assert await asyncio.to_thread(wait_until, lambda: running(slow_wire) == 0)


@pytest.mark.parametrize("model", PATHS)
def test_cancel_by_request_id_ends_a_running_generation(
    slow_server: RunningServer, slow_wire: Wire, model: str
) -> None:
    with RagClient(slow_server.grpc_url, model=model) as client:
        stream = client.stream(QUESTION, max_tokens=LONG, request_id="mine")
        deltas = [next(iter(stream))]
        client.cancel("mine")
        deltas += list(stream)
        assert deltas[-1].finish_reason == "cancelled"
        assert len(deltas) < LONG
    assert wait_until(lambda: running(slow_wire) == 0)


def test_stop_can_be_sent_to_rag_too(slow_wire: Wire) -> None:
    stream = slow_wire.iterate(
        request("rag", {"text_input": QUESTION, "stream": True, "max_tokens": LONG}, request_id="a")
    )
    next(stream)
    (answer,) = slow_wire.stream(request("rag", {"text_input": QUESTION, "stop": True}, request_id="a"))
    assert isinstance(answer, dict)
    assert strings(answer["finish_reason"]) == [b"cancelled"]
    *_, last = stream
    assert isinstance(last, dict)
    assert strings(last["finish_reason"]) == [b"cancelled"]


def test_cancelling_what_does_not_run_says_so(slow_server: RunningServer) -> None:
    with RagClient(slow_server.grpc_url) as client, pytest.raises(NotFoundError, match="'nobody'"):
        client.cancel("nobody")


def test_a_late_answer_is_a_deadline_error_and_frees_the_generation(
    slow_server: RunningServer, slow_wire: Wire
) -> None:
    with RagClient(slow_server.grpc_url, timeouts=Timeouts(connect_s=0.5, total_s=0.5)) as client:
        with pytest.raises(DeadlineError):
            client.ask(QUESTION, max_tokens=LONG)
        assert wait_until(lambda: running(slow_wire) == 0)


def _stream_for_ever(url: str, started: "multiprocessing.synchronize.Event") -> None:
    with RagClient(url) as client:
        for _ in client.stream(QUESTION, max_tokens=LONG):
            started.set()


def test_a_client_that_is_killed_frees_its_generation(slow_server: RunningServer, slow_wire: Wire) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_stream_for_ever, args=(slow_server.grpc_url, started))
    process.start()
    assert started.wait(30)
    assert running(slow_wire) == 1
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert wait_until(lambda: running(slow_wire) == 0)


async def test_a_reader_that_stalls_holds_nobody_up(slow_server: RunningServer, slow_wire: Wire) -> None:
    async with AsyncRagClient(slow_server.grpc_url) as client, client.stream(QUESTION, max_tokens=LONG) as stalled:
        await anext(aiter(stalled))
        answers = await asyncio.gather(*(client.ask(QUESTION, max_tokens=SHORT) for _ in range(20)))
        assert [answer.text.split()[-1] for answer in answers] == [f"w{SHORT}"] * 20
        assert running(slow_wire) == 1


def test_each_stream_gets_its_own_words_in_order(slow_server: RunningServer) -> None:
    async def all_at_once() -> list[str]:
        async with AsyncRagClient(slow_server.grpc_url) as client:

            async def one(count: int) -> str:
                return "".join([delta.text async for delta in client.stream(QUESTION, max_tokens=count)])

            return await asyncio.gather(*(one(count) for count in range(1, 30)))

    texts = asyncio.run(all_at_once())
    assert texts == ["".join(f"w{number} " for number in range(1, count + 1)) for count in range(1, 30)]
