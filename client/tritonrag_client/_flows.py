"""What a client does, written once for threads and for asyncio.

A flow is a generator. Where it has to wait it yields a step: a callable without arguments that gives the result (grpc) or
an awaitable of it (grpc.aio). The client's driver calls or awaits the step and sends the result in, or throws what it raised.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from tritonrag_client._budget import Budget, put_timeout
from tritonrag_client._channel import Calls
from tritonrag_client._core import LEAVE_S, ClientCore
from tritonrag_client._requests import stop_request
from tritonrag_client._status import from_text
from tritonrag_client._wire import GrpcCall, Message
from tritonrag_client.contract import EMBEDDER, GENERATOR, RAG, RETRIEVE, RETRIEVER
from tritonrag_client.errors import DeadlineError, NotFoundError, RagError, UnavailableError
from tritonrag_client.results import Health

T = TypeVar("T")
Flow: TypeAlias = Generator[Callable[[], Any], Any, T]

MODELS: Final = (EMBEDDER, RETRIEVER, GENERATOR, RETRIEVE, RAG)
_LIVE: Final = service_pb2.ServerLiveRequest()
_READY: Final = service_pb2.ServerReadyRequest()


class Reader(Protocol):
    """A stream's call. It stands being read by two at once, and a reader that gives up waiting does not end it."""

    def read(self) -> Any:  # noqa: ANN401 - or an awaitable of it
        """The next message; None at the end and after a failure."""

    def cancel(self) -> None:
        """End the call."""


class Start(Protocol):
    """Runs a flow in the background. Where it `holds_exit`, it ends in bounded time, and a process may wait for it at its exit."""

    def __call__(self, flow: Flow[None], *, holds_exit: bool) -> Any:  # noqa: ANN401 - a thread or a task
        """What `Flavour.ended` takes."""


class Leaver(Protocol):
    """What runs and can be left."""

    def give_up(self) -> object | None:
        """Begin to leave it; what `Flavour.ended` takes, None where there is nothing to leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """What differs between threads and asyncio. `sleep` and `ended` take seconds and are steps.

    `ended` tells whether what `start` began ends within the time.
    """

    sleep: Callable[[float], Any]
    reader: Callable[[GrpcCall], Reader]
    start: Start
    ended: Callable[[Any, float], Any]


class Flows:
    """The jobs of a client. `running` are the answers that have a call now."""

    def __init__(self, core: ClientCore, calls: Calls, flavour: Flavour) -> None:
        self.core, self.calls, self.flavour = core, calls, flavour
        self.running: set[Leaver] = set()

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
            yield partial(self.flavour.sleep, pause_s)

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

    def leave_all(self) -> Flow[None]:
        """Leave every answer that runs."""
        leaves = [leave for answer in list(self.running) if (leave := answer.give_up()) is not None]
        for leave in leaves:
            yield partial(self.flavour.ended, leave, 2 * LEAVE_S)  # each ends by itself within about LEAVE_S

    def _infer(self, request: Message, budget: Budget) -> Flow[Any]:
        yield from self.connect(budget)
        put_timeout(request, budget)
        try:
            return (yield lambda: self.calls.infer(request, timeout=budget.remaining_s()))
        except grpc.RpcError as error:
            raise self.core.failure(error, budget) from error

    def _send_stop(self, request: Message, budget: Budget) -> Flow[None]:
        yield from self.connect(budget)
        # Without put_timeout: no queue shall drop the one message that frees the server.
        reader = self.flavour.reader(self.calls.stream(request, timeout=budget.remaining_s()))
        failure = None
        try:
            while (message := (yield reader.read)) is not None:
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
