"""A hundred clients that ask for a long answer and never read it: the server pays little for them, once."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from tests.faults.slow_server import Held, running, slow_server, words
from tests.server.wire import Wire, request
from tests.waiting import wait_until
from tritonrag.launcher import RunningServer
from tritonrag_backends.settings import Settings
from tritonrag_client import RagClient, RetryPolicy

READERS: Final = 100
LENGTH: Final = 400  # words, 4 s and more
SHORT: Final = 3
QUESTION: Final = "How do I parse a JSON document?"
MOST_MB: Final = 64.0
ROUNDS: Final = 2
AGAIN_MB: Final = 16.0
LENGTH_OF_OTHERS: Final = 40
SHORT_LIVED: Final = ("--grpc-max-connection-age=4000", "--grpc-max-connection-age-grace=15000")
STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture(scope="module")
def at_first(slow: RunningServer) -> Held:
    """What the server holds before anybody stalls."""
    with RagClient(slow.grpc_url) as client:
        for _ in range(20):
            client.ask(QUESTION, max_tokens=SHORT)
    return Held.now(slow)


class Stalled:
    """READERS streams, each with a connection of its own, of which no message is ever read; a context manager."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._asked, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stall()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._asked.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _stall(self) -> None:
        channels = [self._channel() for _ in range(READERS)]
        calls = [self._ask(channel) for channel in channels]
        await asyncio.gather(*(call.wait_for_connection() for call in calls))
        self._asked.set()
        await asyncio.to_thread(self._leave.wait)
        for call in calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in channels))

    def _channel(self) -> Any:
        return grpc.aio.insecure_channel(self._url, options=[("grpc.use_local_subchannel_pool", 1)])

    def _ask(self, channel: Any) -> Any:
        call = channel.unary_stream(
            STREAM,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        return call(request(self._model, {"text_input": QUESTION, "stream": True, "max_tokens": LENGTH}), timeout=300)


@pytest.mark.parametrize("model", ["generator", "rag"])
def test_a_hundred_stalled_readers_cost_little_and_hold_nobody_up(
    slow: RunningServer, slow_wire: Wire, at_first: Held, model: str
) -> None:
    with RagClient(slow.grpc_url) as client:
        stalled = [stall(slow, slow_wire, model, client) for _ in range(ROUNDS)]
        left = Held.now(slow)
    assert stalled[0].megabytes - at_first.megabytes < MOST_MB, (at_first, stalled)
    # What they held is free for others: the allocator keeps it, and the next hundred live on it.
    assert stalled[-1].megabytes - stalled[0].megabytes < AGAIN_MB, (at_first, stalled)
    assert left.descriptors <= at_first.descriptors + 8, (at_first, stalled, left)


def stall(slow: RunningServer, slow_wire: Wire, model: str, client: RagClient) -> Held:
    """What the server holds when a hundred answers are written, and read by nobody."""
    with Stalled(slow.grpc_url, model):
        assert wait_until(lambda: running(slow_wire) == READERS)
        assert client.ask(QUESTION, max_tokens=SHORT).text == words(SHORT)
        assert wait_until(lambda: running(slow_wire) == 0, deadline_s=120)
        held = Held.now(slow)
        assert client.ask(QUESTION, max_tokens=SHORT).text == words(SHORT)
    return held


@pytest.fixture(scope="module")
def impatient(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose connections have an end."""
    with slow_server(settings, tmp_path_factory.mktemp("impatient") / "repository", *SHORT_LIVED) as running_server:
        yield running_server


def test_a_connection_has_an_end_which_cuts_stalled_readers_off_and_nobody_else(impatient: RunningServer) -> None:
    """No model sees that its reader stalls, and gRPC's pings are answered all the same. The age of a connection is what is left."""
    with RagClient(impatient.grpc_url, retry=RetryPolicy(attempts=1)) as client:
        before = Held.now(impatient)

        def asked_and_cut_off() -> bool:
            assert client.ask(QUESTION, max_tokens=LENGTH_OF_OTHERS).text == words(LENGTH_OF_OTHERS)
            assert client.search(QUESTION).passages
            return Held.now(impatient).descriptors <= before.descriptors + 8

        with Stalled(impatient.grpc_url, "generator"):
            assert Held.now(impatient).descriptors >= before.descriptors + READERS
            assert wait_until(asked_and_cut_off, deadline_s=120)
