"""What a client does, written once for threads and for asyncio.

A flow is a generator. Where it has to wait it yields a step: a callable without arguments that gives the result (grpc) or
an awaitable of it (grpc.aio). The client's driver calls or awaits the step and sends the result in, or throws what it raised.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from tritonrag_client._answers import AnswerProgress, join
from tritonrag_client._budget import Budget, put_queue_timeout
from tritonrag_client._channel import Calls
from tritonrag_client._core import AnswerJob, ClientCore
from tritonrag_client._requests import stop_request
from tritonrag_client._status import from_text
from tritonrag_client._wire import GrpcCall, Message
from tritonrag_client.contract import EMBEDDER, GENERATOR, RAG, RETRIEVE, RETRIEVER
from tritonrag_client.errors import DeadlineError, NotFoundError, RagError, RequestCancelledError, UnavailableError
from tritonrag_client.results import Answer, AnswerDelta, Health

T = TypeVar("T")
Flow: TypeAlias = Generator[Callable[[], Any], Any, T]

MODELS: Final = (EMBEDDER, RETRIEVER, GENERATOR, RETRIEVE, RAG)
_LIVE: Final = service_pb2.ServerLiveRequest()
_READY: Final = service_pb2.ServerReadyRequest()
_logger = logging.getLogger("tritonrag_client")


class Flows:
    """The jobs of a client. `sleep` and `read` are of the calls' flavour; `read` gives a stream's next message, None at its end."""

    def __init__(
        self, core: ClientCore, calls: Calls, sleep: Callable[[float], Any], read: Callable[[GrpcCall], Any]
    ) -> None:
        self.core, self.calls, self.sleep, self.read = core, calls, sleep, read

    def connect(self, budget: Budget) -> Flow[None]:
        """Make sure of a connection, so that a silent address costs `connect_s` and not the whole time."""
        self.core.require_open()
        if self.core.connected:
            return
        try:
            yield lambda: self.calls.live(_LIVE, timeout=budget.connect_s())
        except grpc.RpcError as error:
            self.core.judge_connecting(error, budget)
        self.core.connected = True

    def retrying(self, budget: Budget, attempt: Callable[[], Flow[T]]) -> Flow[T]:
        """The result of the first attempt that succeeds."""
        tries = self.core.tries(budget)
        while True:
            try:
                return (yield from attempt())
            except RagError as error:
                pause_s = tries.pause_s(error)
            yield partial(self.sleep, pause_s)

    def infer_all(self, requests: Iterable[Message], parse: Callable[[Message], T], budget: Budget) -> Flow[list[T]]:
        """Requests to a batching model, one after the other, each tried again by itself; the parsed responses."""
        results = []
        for request in requests:
            response = yield from self.retrying(budget, partial(self._infer, request, budget))
            results.append(parse(response))
        return results

    def health(self, budget: Budget) -> Flow[Health]:
        """Ask the server, then the contract's models."""
        if not (yield from self._says_yes(self.calls.live, _LIVE, "live", budget)):
            return Health(models=dict.fromkeys(MODELS, False))
        ready = yield from self._says_yes(self.calls.ready, _READY, "ready", budget)
        models = {}
        for model in MODELS:
            question = service_pb2.ModelReadyRequest(name=model)
            models[model] = yield from self._says_yes(self.calls.model_ready, question, "ready", budget)
        return Health(live=True, ready=ready, models=models)

    def stop(self, request_id: str, tenant: str | None, budget: Budget) -> Flow[None]:
        """End a running generation; raises NotFoundError where there is none with this id and tenant."""
        request = stop_request(request_id, tenant)
        yield from self.retrying(budget, partial(self._send_stop, request, budget))

    def _infer(self, request: Message, budget: Budget) -> Flow[Any]:
        yield from self.connect(budget)
        put_queue_timeout(request, budget)
        try:
            return (yield lambda: self.calls.infer(request, timeout=budget.remaining_s()))
        except grpc.RpcError as error:
            raise self.core.failure(error, budget) from error

    def _send_stop(self, request: Message, budget: Budget) -> Flow[None]:
        yield from self.connect(budget)
        call = self.calls.stream(request, timeout=budget.remaining_s())
        failure = None
        try:
            while (message := (yield partial(self.read, call))) is not None:
                failure = failure or message.error_message
        except grpc.RpcError as error:
            raise self.core.failure(error, budget) from error
        if failure:
            raise from_text(failure)

    def _says_yes(self, method: Callable[..., Any], question: Message, field: str, budget: Budget) -> Flow[bool]:
        try:
            response = yield lambda: method(question, timeout=budget.connect_s())
        except grpc.RpcError as error:
            failure = self.core.failure(error, budget)
            if isinstance(failure, UnavailableError | DeadlineError | NotFoundError):
                return False
            raise failure from error
        except DeadlineError:
            return False
        return bool(getattr(response, field))


class AnswerFlow:
    """One streamed answer: reading it on, and giving it up."""

    def __init__(self, flows: Flows, job: AnswerJob) -> None:
        self._flows, self._job = flows, job
        self._call: GrpcCall = None

    @property
    def progress(self) -> AnswerProgress:
        """How far the answer is."""
        return self._job.progress

    def next_delta(self) -> Flow[AnswerDelta | None]:
        """The next piece, None after the last. Tries again as long as no piece has come."""
        while not self.progress.ended:
            try:
                delta = yield from self._read()
            except RagError as error:
                if self._call is not None:
                    self._call.cancel()
                pause_s = self.progress.pause_s(error)
            else:
                if delta is not None:
                    return delta
                continue
            self._call = None
            yield partial(self._flows.sleep, pause_s)
        return None

    def whole(self) -> Flow[Answer]:
        """The whole answer."""
        deltas = []
        while (delta := (yield from self.next_delta())) is not None:
            deltas.append(delta)
        return join(deltas)

    def abandon(self) -> bool:
        """End the call, from any thread; True where the server has to be told to stop besides."""
        tell = self.progress.cancel()
        call = self._call
        if call is not None:
            call.cancel()
        return tell and call is not None

    def tell(self) -> Flow[None]:
        """Tell a server that does not notice by itself that nobody wants the answer any more. Failing in that is only logged."""
        try:
            yield from self._flows.stop(self.progress.request_id, self._job.tenant, self._flows.core.stop_budget())
        except NotFoundError:
            _logger.debug("request %s had ended before it could be stopped", self.progress.request_id)
        except RagError as error:
            _logger.warning("request %s may go on at the server: %s", self.progress.request_id, error)

    def _read(self) -> Flow[AnswerDelta | None]:
        self.progress.require_wanted()
        if self._call is None:
            yield from self._flows.connect(self._job.budget)
            self._call = self._flows.calls.stream(self._job.request, timeout=self._job.budget.remaining_s())
        try:
            self.progress.require_wanted()  # `cancel` may have come before there was a call to end
            message = yield partial(self._flows.read, self._call)
        except grpc.RpcError as error:
            raise self._flows.core.failure(error, self._job.budget) from error
        if message is not None and message.error_message:
            yield from self._read_out()
            raise from_text(message.error_message)
        delta = self.progress.accept(message)
        if self.progress.complete:
            yield from self._read_out()
            self.progress.ended = True
        return delta

    def _read_out(self) -> Flow[None]:
        """Let a call whose last word has been said end by itself: it does at once.

        Ending it from here just then is a race that Triton 2.51.0 can lose by a segmentation fault (measured: after 669
        such calls; server pull requests 7840 and 8078 mend such races in later releases).
        """
        with suppress(grpc.RpcError, RequestCancelledError):
            while (yield partial(self._flows.read, self._call)) is not None:
                pass
