"""The client for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from tritonrag_client._answer_flow import AnswerFlow
from tritonrag_client._core import DEFAULT_URL, REAL_CHANCE, Chance, ClientCore, ClientSettings
from tritonrag_client._flows import Flavour, Flow, Flows
from tritonrag_client._requests import embed_requests, rows_of, search_requests
from tritonrag_client._responses import join_embedding, join_search, parse_embedding, parse_search
from tritonrag_client._wire import GrpcCall, GrpcChannel, Message
from tritonrag_client.contract import InputType, Source
from tritonrag_client.errors import RagError, RequestCancelledError
from tritonrag_client.options import (
    DEFAULT_CHANNEL,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUTS,
    AnswerModel,
    AnswerOptions,
    ChannelOptions,
    RetryPolicy,
    SearchOptions,
    Timeouts,
    TlsOptions,
)
from tritonrag_client.results import Answer, AnswerDelta, Health, SearchResult

T = TypeVar("T")


class AsyncRagClient:
    """RagClient for one event loop: the one in which it makes its first call. Many tasks may share it.

    Same arguments, results and errors. A cancelled task leaves its answer as AsyncAnswerStream does, without waiting for it.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = DEFAULT_RETRY,
        tls: TlsOptions | None = None,
        channel: ChannelOptions = DEFAULT_CHANNEL,
        model: AnswerModel = "generator",
        _chance: Chance = REAL_CHANCE,
        _sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        settings = ClientSettings(url=url, timeouts=timeouts, retry=retry, tls=tls, channel=channel, model=model)
        self._core, self._sleep = ClientCore(settings, _chance), _sleep
        self._channels: list[GrpcChannel] = []
        self._opened: Flows | None = None

    async def ask(self, question: str, **options: Unpack[AnswerOptions]) -> Answer:
        """The whole answer to a question."""
        flow = AnswerFlow(self._flows, self._core.answer(question, options, stream=False))
        async with AsyncAnswerStream(flow):
            return await _drive(flow.whole())

    def stream(self, question: str, **options: Unpack[AnswerOptions]) -> "AsyncAnswerStream":
        """The answer to a question, piece by piece as it is written; sent with the first `anext`.

        What fails before the first piece is raised. An answer that breaks off later may also end with a last delta whose
        `finish_reason` is "error" and whose `degraded` tells why: what came before it was passed on already.
        """
        return AsyncAnswerStream(AnswerFlow(self._flows, self._core.answer(question, options, stream=True)))

    @overload
    async def search(self, question: str, **options: Unpack[SearchOptions]) -> SearchResult: ...
    @overload
    async def search(
        self, question: list[str] | tuple[str, ...], **options: Unpack[SearchOptions]
    ) -> list[SearchResult]: ...
    async def search(
        self, question: str | Sequence[str], **options: Unpack[SearchOptions]
    ) -> SearchResult | list[SearchResult]:
        """The passages nearest to a question, or to each of several; up to 64 go in one request."""
        budget = self._core.budget(options.pop("timeouts", None))
        requests = search_requests(rows_of("question", question), options)
        results = join_search(await _drive(self._flows.infer_all(requests, parse_search, budget)))
        return results[0] if isinstance(question, str) else results

    async def embed(
        self, texts: str | Sequence[str], *, input_type: InputType = "query", timeouts: Timeouts | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit vectors: FP32 [dim] of one text, [n, dim] of a sequence of n, [0, 0] of an empty one; up to 64 go in one request.

        `input_type` tells what the texts are, questions or passages: some models embed the two differently.
        """
        requests = embed_requests(rows_of("texts", texts), input_type)
        vectors = join_embedding(
            await _drive(self._flows.infer_all(requests, parse_embedding, self._core.budget(timeouts)))
        )
        return vectors[0] if isinstance(texts, str) else vectors

    async def health(self, *, timeouts: Timeouts | None = None) -> Health:
        """Whether the server lives, is ready, and which models are. One that does not answer within `connect_s` is not live."""
        return await _drive(self._flows.health(self._core.budget(timeouts)))

    async def cancel(self, request_id: str, *, tenant: str | None = None, timeouts: Timeouts | None = None) -> None:
        """End the running generation with this id that `tenant` asked for. Raises NotFoundError where there is none."""
        await _drive(self._flows.stop(request_id, tenant, self._core.budget(timeouts)))

    async def close(self) -> None:
        """End the connection; requests that still run end with RequestCancelledError.

        Answers that still run, or that cancelled tasks and dropped streams began to leave, are left first, which may take a second.
        """
        try:
            if self._opened is not None:
                await _drive(self._opened.leave_all())
        finally:
            self._core.close()
            for channel in self._channels:
                await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _flows(self) -> Flows:
        # A channel of grpc.aio belongs to the loop in which it is made, so the first call makes it, not the constructor.
        if self._opened is None:
            self._core.require_open()
            self._channels, calls = self._core.open(grpc.aio)
            self._opened = Flows(
                self._core, calls, Flavour(sleep=self._sleep, reader=_Reader, start=_start, ended=_ended)
            )
        return self._opened


class AsyncAnswerStream:
    """An answer as it is written: iterate over it once, with one task.

    Leaving the `async with` block, `cancel`, a cancelled task and dropping the last reference end the generation at the server
    if it still runs: the server is told to stop, and the call is read out to its end. That takes some milliseconds; a call that
    has not ended after a second is cut off. A cancelled task and dropping do not wait for it; the client does when it is closed.
    Reading on after that raises RequestCancelledError.
    """

    def __init__(self, flow: AnswerFlow) -> None:
        self._flow = flow
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def request_id(self) -> str:
        """The name by which `AsyncRagClient.cancel` finds the generation."""
        return self._flow.progress.request_id

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the answer cites; empty before the first delta."""
        return self._flow.progress.sources

    @property
    def finish_reason(self) -> str:
        """How the answer ended, one of contract.FinishReason; empty before the last delta."""
        return self._flow.progress.finish_reason

    async def cancel(self) -> None:
        """Give the answer up and wait for its end, about a second at most. Does nothing where it is complete."""
        if (leave := self._flow.give_up()) is not None:
            await asyncio.shield(leave)

    aclose = cancel

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnswerDelta:
        self._loop = asyncio.get_running_loop()
        try:
            delta = await _drive(self._flow.next_delta())
        except asyncio.CancelledError:
            self._flow.give_up()
            raise
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._flow.give_up()
        else:
            await self.cancel()

    def __del__(self) -> None:
        # The garbage collector may run on any thread, and a call of grpc.aio belongs to its loop.
        if self._loop is not None and not self._flow.progress.ended:
            with suppress(RuntimeError):  # the loop is closed, and with it the call
                self._loop.call_soon_threadsafe(self._flow.give_up)


async def _drive(flow: Flow[T]) -> T:
    """Run a flow in this task."""
    try:
        step = next(flow)
        while True:
            try:
                result = await _here(step())
            except (grpc.RpcError, RagError) as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        result_of_flow: T = end.value
        return result_of_flow


async def _here(awaitable: Awaitable[T]) -> T:
    """Await a call. grpc.aio raises CancelledError for a call that was cancelled here; that is not this task's own cancellation."""
    try:
        return await awaitable
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RequestCancelledError("the call was cancelled here, before its last response") from None


class _Reader:
    """A call, whose readers wait for the same message. grpc.aio ends a call whose reader is cancelled, so a task of ours reads."""

    def __init__(self, call: GrpcCall) -> None:
        self._call = call
        self._reading: asyncio.Task[Message] | None = None

    async def read(self) -> Message | None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._call.read())
        message = await asyncio.shield(self._reading)
        return None if message is grpc.aio.EOF else message

    def cancel(self) -> None:
        self._call.cancel()


def _start(flow: Flow[None], *, holds_exit: bool) -> asyncio.Task[None]:  # noqa: ARG001 - a loop's end waits for no task
    return asyncio.get_running_loop().create_task(_drive(flow))


async def _ended(task: asyncio.Task[None], timeout_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    return bool(done)
