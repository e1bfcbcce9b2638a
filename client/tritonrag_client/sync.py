"""The client for threads."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

import grpc
import numpy as np
import numpy.typing as npt

from tritonrag_client._answer_flow import AnswerFlow
from tritonrag_client._core import DEFAULT_URL, LEAVE_S, REAL_CHANCE, Chance, ClientCore, ClientSettings
from tritonrag_client._flows import Flavour, Flow, Flows
from tritonrag_client._requests import embed_requests, rows_of, search_requests
from tritonrag_client._responses import join_embedding, join_search, parse_embedding, parse_search
from tritonrag_client._wire import GrpcCall, Message
from tritonrag_client.contract import InputType, Source
from tritonrag_client.errors import RagError
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


class RagClient:
    """Asks a tritonrag server over gRPC, or one of several. Threads may share one; close it, or use it as a context manager.

    It connects with the first call. gRPC does not survive a fork: make the client in the child.

    `url`: an address, or a list of them, of servers of the same index, which are asked in turn. One that is gone, drains or is not
    ready is left for another at once, and so is an answer of which nothing has come yet.

    `model`: "generator" retrieves on the server by itself; "rag" is the ensemble of retriever and generator.

    Calls raise RagError: BadRequestError, NotFoundError, OverloadedError, DeadlineError, RequestCancelledError, UnavailableError,
    DeniedError, InternalError. Those that a retry can help are tried again as `retry` says, within `timeouts.total_s`.
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
        _sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        settings = ClientSettings(url=url, timeouts=timeouts, retry=retry, tls=tls, channel=channel, model=model)
        self._core = ClientCore(settings, _chance)
        self._channels, calls = self._core.open(grpc)
        self._flows = Flows(self._core, calls, Flavour(sleep=_sleep, reader=_Reader, start=_start, ended=_ended))

    def ask(self, question: str, **options: Unpack[AnswerOptions]) -> Answer:
        """The whole answer to a question."""
        flow = AnswerFlow(self._flows, self._core.answer(question, options, stream=False))
        with AnswerStream(flow):
            return _drive(flow.whole())

    def stream(self, question: str, **options: Unpack[AnswerOptions]) -> "AnswerStream":
        """The answer to a question, piece by piece as it is written; sent with the first `next`.

        What fails before the first piece is raised. An answer that breaks off later may also end with a last delta whose
        `finish_reason` is "error" and whose `degraded` tells why: what came before it was passed on already.
        """
        return AnswerStream(AnswerFlow(self._flows, self._core.answer(question, options, stream=True)))

    @overload
    def search(self, question: str, **options: Unpack[SearchOptions]) -> SearchResult: ...
    @overload
    def search(self, question: list[str] | tuple[str, ...], **options: Unpack[SearchOptions]) -> list[SearchResult]: ...
    def search(
        self, question: str | Sequence[str], **options: Unpack[SearchOptions]
    ) -> SearchResult | list[SearchResult]:
        """The passages nearest to a question, or to each of several; up to 64 go in one request."""
        budget = self._core.budget(options.pop("timeouts", None))
        requests = search_requests(rows_of("question", question), options)
        results = join_search(_drive(self._flows.infer_all(requests, parse_search, budget)))
        return results[0] if isinstance(question, str) else results

    def embed(
        self, texts: str | Sequence[str], *, input_type: InputType = "query", timeouts: Timeouts | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit vectors: FP32 [dim] of one text, [n, dim] of a sequence of n, [0, 0] of an empty one; up to 64 go in one request.

        `input_type` tells what the texts are, questions or passages: some models embed the two differently.
        """
        requests = embed_requests(rows_of("texts", texts), input_type)
        vectors = join_embedding(_drive(self._flows.infer_all(requests, parse_embedding, self._core.budget(timeouts))))
        return vectors[0] if isinstance(texts, str) else vectors

    def health(self, *, timeouts: Timeouts | None = None) -> Health:
        """Whether the server lives, is ready, and which models are. One that does not answer within `connect_s` is not live."""
        return _drive(self._flows.health(self._core.budget(timeouts)))

    def cancel(self, request_id: str, *, tenant: str | None = None, timeouts: Timeouts | None = None) -> None:
        """End the running generation with this id that `tenant` asked for. Raises NotFoundError where there is none."""
        _drive(self._flows.stop(request_id, tenant, self._core.budget(timeouts)))

    def close(self) -> None:
        """End the connection; requests that still run end with RequestCancelledError.

        Answers that still run are left as streams are, which may take a second.
        """
        try:
            _drive(self._flows.leave_all())
        finally:
            self._core.close()
            for channel in self._channels:
                channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AnswerStream:
    """An answer as it is written: iterate over it once. One thread reads; `cancel` (also named `close`) may come from any.

    Leaving the `with` block, `close` and dropping the last reference end the generation at the server if it still runs: the
    server is told to stop, and the call is read out to its end. That takes some milliseconds; a call that has not ended after
    a second is cut off. Only dropping does not wait for it. Reading on after that raises RequestCancelledError.
    """

    def __init__(self, flow: AnswerFlow) -> None:
        self._flow = flow

    @property
    def request_id(self) -> str:
        """The name by which `RagClient.cancel` finds the generation."""
        return self._flow.progress.request_id

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the answer cites; empty before the first delta."""
        return self._flow.progress.sources

    @property
    def finish_reason(self) -> str:
        """How the answer ended, one of contract.FinishReason; empty before the last delta."""
        return self._flow.progress.finish_reason

    def cancel(self) -> None:
        """Give the answer up and wait for its end, about a second at most. Does nothing where it is complete."""
        if (leave := self._flow.give_up()) is not None:
            _ended(leave, 2 * LEAVE_S)

    close = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnswerDelta:
        try:
            delta = _drive(self._flow.next_delta())
        except RagError:
            raise
        except BaseException:
            # KeyboardInterrupt, say: gRPC loses the message for which a read waited that is broken off.
            self._flow.give_up()
            raise
        if delta is None:
            raise StopIteration
        return delta

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # a thread that is started then never runs, and start() would wait for it
            self._flow.give_up()


def _drive(flow: Flow[T]) -> T:
    """Run a flow on this thread."""
    try:
        step = next(flow)
        while True:
            try:
                result = step()
            except (grpc.RpcError, RagError) as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        result_of_flow: T = end.value
        return result_of_flow


class _Reader:
    """A call, of whose readers one waits for a message and the others for the one.

    A read that KeyboardInterrupt breaks off goes on inside gRPC, and a second one besides it fails with "call error 8". So
    after that nobody reads, and the call's end is awaited.
    """

    def __init__(self, call: GrpcCall) -> None:
        self._call, self._one_reads = call, threading.Lock()
        self._broken_off = False

    def read(self) -> Message | None:
        with self._one_reads:
            if self._broken_off:
                self._await_end()
                return None
            self._broken_off = True  # stays so where `next` raises
            message = next(self._call, None)
            self._broken_off = False
            return message

    def _await_end(self) -> None:
        over = threading.Event()
        if self._call.add_callback(over.set):
            over.wait()

    def cancel(self) -> None:
        self._call.cancel()


def _start(flow: Flow[None], *, holds_exit: bool) -> threading.Thread:
    """Run a flow on a thread of its own; the interpreter's exit waits for it where it `holds_exit`."""
    thread = threading.Thread(target=_drive, args=(flow,), name="tritonrag-leave", daemon=not holds_exit)
    thread.start()
    return thread


def _ended(thread: threading.Thread, timeout_s: float) -> bool:
    thread.join(timeout_s)
    return not thread.is_alive()
