"""Several generators in one server: a stop ends the streams it means, whichever instance it reaches, and no others."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import pytest

from tests.server.wire import Wire
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag_backends.settings import GeneratorSettings, Settings
from tritonrag_client import AnswerDelta, AsyncRagClient, NotFoundError, RagClient
from tritonrag_client.options import AnswerModel

QUESTION = "How do I parse a JSON document?"
LONG = 4000  # words, 40 s: what runs on would still run when the test asks
INSTANCES = 2
STREAMS = 20
PATHS: tuple[AnswerModel, ...] = ("generator", "rag")


@pytest.fixture(scope="module")
def several_server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("several")
    for model in CHECKOUT_REPOSITORY.iterdir():
        shutil.copytree(model, repository / model.name)
    shutil.copy(Path(__file__).with_name("slow_generator.py"), repository / "generator" / "1" / "model.py")
    several = settings.model_copy(update={"generator": GeneratorSettings(instances=INSTANCES)})
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(settings=several, model_repository=repository))
    assert triton.check_left_behind() == []


@pytest.fixture
def several_wire(several_server: RunningServer) -> Iterator[Wire]:
    connection = Wire(several_server)
    yield connection
    assert wait_until(lambda: running(connection) == 0), "a generation goes on after its test"
    connection.close()


def running(wire: Wire) -> float:
    return wire.metric("tritonrag_generations_running")


def spread(wire: Wire) -> list[float]:
    """Generations that run in each instance."""
    names = (f"generator_0_{number}" for number in range(INSTANCES))
    return [wire.metric("tritonrag_generations_running", model_instance=name) for name in names]


class Streams:
    """Answers that run, each by its request id; left at the end where they were not stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: dict[str, list[AsyncIterator[AnswerDelta]]] = {}
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.aclose()

    async def start(self, model: AnswerModel, *request_ids: str, tenant: str | None = None) -> None:
        """Each has its first words when this returns, and a connection of its own."""
        streams = []
        for request_id in request_ids:
            client = await self._held.enter_async_context(AsyncRagClient(self.url, model=model))
            stream = client.stream(QUESTION, max_tokens=LONG, request_id=request_id, tenant=tenant)
            streams.append(aiter(await self._held.enter_async_context(stream)))
            self._open.setdefault(request_id, []).append(streams[-1])
        await asyncio.gather(*map(anext, streams))

    async def stop(self, *request_ids: str, tenant: str | None = None) -> None:
        """From other connections, all at once."""

        async def one(request_id: str) -> None:
            async with AsyncRagClient(self.url) as client:
                await client.cancel(request_id, tenant=tenant)

        await asyncio.gather(*map(one, request_ids))

    async def ends_of(self, *request_ids: str) -> list[str]:
        """How each of those ended that bear these ids; waits for it."""

        async def one(stream: AsyncIterator[AnswerDelta]) -> str:
            return [delta async for delta in stream][-1].finish_reason

        return await asyncio.gather(*(one(stream) for name in request_ids for stream in self._open.pop(name)))

    async def goes_on(self, request_id: str) -> bool:
        """Whether a stream still writes."""
        return all([(await anext(stream)).finish_reason == "" for stream in self._open[request_id]])


@pytest.mark.parametrize("model", PATHS)
@pytest.mark.parametrize("turn", range(3))
async def test_stops_from_other_connections_end_their_own_streams_and_no_others(
    several_server: RunningServer, several_wire: Wire, model: AnswerModel, turn: int
) -> None:
    ids = [f"{turn} {number}" for number in range(STREAMS)]
    async with Streams(several_server.grpc_url) as streams:
        await streams.start(model, *ids)
        assert sum(spread(several_wire)) == STREAMS
        assert all(spread(several_wire)), "all streams run in one instance, so that this shows nothing"
        await streams.stop(*ids[::2])
        assert await streams.ends_of(*ids[::2]) == ["cancelled"] * (STREAMS // 2)
        assert all([await streams.goes_on(request_id) for request_id in ids[1::2]])
        await streams.stop(*ids[1::2])
        assert await streams.ends_of(*ids[1::2]) == ["cancelled"] * (STREAMS // 2)
    assert await asyncio.to_thread(wait_until, lambda: running(several_wire) == 0)


async def test_all_streams_under_one_id_end_in_all_instances(several_server: RunningServer, several_wire: Wire) -> None:
    async with Streams(several_server.grpc_url) as streams:
        await streams.start("generator", *["shared"] * STREAMS)
        assert all(spread(several_wire))
        await streams.stop("shared")
        assert await streams.ends_of("shared") == ["cancelled"] * STREAMS


async def test_tenants_stay_apart_in_all_instances(several_server: RunningServer, several_wire: Wire) -> None:
    async with Streams(several_server.grpc_url) as streams:
        await streams.start("generator", *["mine"] * STREAMS, tenant="blue")
        assert all(spread(several_wire))
        for tenant in (None, "red"):
            with pytest.raises(NotFoundError, match="'mine'"):
                await streams.stop("mine", tenant=tenant)
        assert await streams.goes_on("mine")
        await streams.stop("mine", tenant="blue")
        assert await streams.ends_of("mine") == ["cancelled"] * STREAMS


@pytest.mark.parametrize("model", PATHS)
async def test_streams_that_are_left_free_their_generations(
    several_server: RunningServer, several_wire: Wire, model: AnswerModel
) -> None:
    async with Streams(several_server.grpc_url) as streams:
        await streams.start(model, *(f"left {number}" for number in range(STREAMS)))
        assert all(spread(several_wire))
    assert await asyncio.to_thread(wait_until, lambda: running(several_wire) == 0)


def test_what_runs_nowhere_is_not_found_by_any_instance(several_server: RunningServer) -> None:
    with RagClient(several_server.grpc_url) as client:
        for _ in range(10):
            with pytest.raises(NotFoundError, match="'nobody'"):
                client.cancel("nobody")
