"""What a client does, written once for threads and for asyncio.

A flow is a generator. Where it has to wait it yields a step: a callable without arguments that gives the result (grpc) or
an awaitable of it (grpc.aio). The client's driver calls or awaits the step and sends the result in, or throws what it raised.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from tritonrag_client._budget import Budget, Tries, put_timeout
from tritonrag_client._channel import Calls
from tritonrag_client._core import ASIDE_S, LEAVE_S, ClientCore
from tritonrag_client._requests import stop_request
from tritonrag_client._servers import Server
from tritonrag_client._status import from_text, knows_no_model
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

    def __init__(self, core: ClientCore, calls: Mapping[Server, Calls], flavour: Flavour) -> None:
        self.core, self.calls, self.flavour = core, calls, flavour
        self.running: set[Leaver] = set()

    def reach(self, tries: Tries, budget: Budget) -> Flow[Server]:
        """The server for the next try, connected.

        Raises UnavailableError where it can't be reached; also where it is not ready, as long as another is left.
        """
        self.core.require_open()
        server = tries.aim()
        if not server.connected:
            yield from self._connect(server, budget) if tries.last else self._look_at(server, budget)
        return server

    def pause(self, pause_s: float) -> Flow[None]:
        """Wait so long; not at all where another server is asked at once."""
        if pause_s:
            yield partial(self.flavour.sleep, pause_s)

    def retrying(self, tries: Tries, budget: Budget, send: Callable[[Server], Flow[T]]) -> Flow[T]:
        """The result of the first try that succeeds."""
        while True:
            try:
                server = yield from self.reach(tries, budget)
                result = yield from send(server)
            except RagError as error:
                pause_s = tries.pause_s(error)
            else:
                tries.succeeded()
                return result
            yield from self.pause(pause_s)

    def infer_all(self, requests: Iterable[Message], parse: Callable[[Message], T], budget: Budget) -> Flow[list[T]]:
        """Requests to a batching model, one after the other, each tried again by itself; the parsed responses."""
        results = []
        for request in requests:
            tries = self.core.tries(budget)
            response = yield from self.retrying(tries, budget, partial(self._infer, request, budget))
            results.append(parse(response))
        return results

    def health(self, budget: Budget) -> Flow[Health]:
        """What at least one of the servers says of itself and of each model; they are asked until one more could add nothing."""
        known = Health(models=dict.fromkeys(MODELS, False))

        def ask(server: Server) -> Flow[bool]:
            nonlocal known
            if not (known.ready and all(known.models.values())):
                one = yield from self._health_of(server, budget)
                known = Health(
                    live=known.live or one.live,
                    ready=known.ready or one.ready,
                    models={model: known.models[model] or one.models[model] for model in MODELS},
                )
            return known.ready and all(known.models.values())

        yield from self._ask_around(ask, budget)
        return known

    def stop(self, request_id: str, tenant: str | None, budget: Budget, at: Server | None = None) -> Flow[None]:
        """End a running generation, where it is known `at` that server, else at whichever has it.

        Raises NotFoundError where none has one with this id and tenant, and another error where one that could have it failed.
        """
        request = stop_request(request_id, tenant)
        failures: list[RagError] = []

        def tell(server: Server) -> Flow[bool]:
            tries = self.core.tries(budget, server)
            try:
                yield from self.retrying(tries, budget, partial(self._send_stop, request, budget))
            except RagError as error:
                failures.append(error)
                return False
            return True

        if not (yield from (self._ask_around(tell, budget) if at is None else tell(at))):
            raise next((error for error in failures if not isinstance(error, NotFoundError)), failures[0])

    def judged(self, error: RagError, server: Server, budget: Budget) -> Flow[RagError]:
        """What a failure means, once a server that knows of no model was asked whether it is ready: it is not while it drains."""
        if not knows_no_model(error):
            return error
        try:
            yield from self._look_at(server, budget)
        except RagError as unready:
            return unready
        return error

    def leave_all(self) -> Flow[None]:
        """Leave every answer that runs."""
        leaves = [leave for answer in list(self.running) if (leave := answer.give_up()) is not None]
        for leave in leaves:
            yield partial(self.flavour.ended, leave, 2 * LEAVE_S)  # each ends by itself within about LEAVE_S

    def _ask_around(self, ask: Callable[[Server], Flow[bool]], budget: Budget) -> Flow[bool]:
        """Whether one of the servers says yes. One that does not answer at once keeps none of the others waiting.

        It is asked after them, and only where they all said no; then it has all the time that is left.
        """
        servers = sorted(self.core.servers, key=lambda server: not server.connected)
        silent: list[Server] = []
        yes = False
        for server in servers:
            another_is_left = yes or server is not servers[-1]
            if another_is_left and not (yield from self._answers_at_once(server, budget)):
                silent.append(server)
            else:
                yes = (yield from ask(server)) or yes
        for server in silent:
            yes = yes or (yield from ask(server))
        return yes

    def _answers_at_once(self, server: Server, budget: Budget) -> Flow[bool]:
        try:
            yield from self._connect(server, budget, within_s=ASIDE_S)
        except RagError:
            return False
        return True

    def _connect(self, server: Server, budget: Budget, *, within_s: float = math.inf) -> Flow[None]:
        """Make sure of a connection, so that a silent address costs `connect_s`, or `within_s`, and not the whole time."""
        try:
            yield lambda: self.calls[server].live(_LIVE, timeout=min(within_s, budget.connect_s()))
        except grpc.RpcError as error:
            self.core.judge_connecting(error, budget, server)
        self.core.servers.reached(server)

    def _look_at(self, server: Server, budget: Budget) -> Flow[None]:
        """Raises UnavailableError unless the server says at once that it is ready."""
        try:
            answer = yield lambda: self.calls[server].ready(_READY, timeout=min(ASIDE_S, budget.connect_s()))
        except grpc.RpcError as error:
            self.core.judge_connecting(error, budget, server)
            answer = None
        if answer is None or not answer.ready:
            raise UnavailableError(f"the server {server.url} is not ready", elsewhere=True)
        self.core.servers.found_ready(server)

    def _infer(self, request: Message, budget: Budget, server: Server) -> Flow[Any]:
        put_timeout(request, budget)
        try:
            return (yield lambda: self.calls[server].infer(request, timeout=budget.remaining_s()))
        except grpc.RpcError as error:
            failure = yield from self.judged(self.core.failure(error, budget, server), server, budget)
            raise failure from error

    def _send_stop(self, request: Message, budget: Budget, server: Server) -> Flow[None]:
        # Without put_timeout: no queue shall drop the one message that frees the server.
        reader = self.flavour.reader(self.calls[server].stream(request, timeout=budget.remaining_s()))
        failure = None
        try:
            while (message := (yield reader.read)) is not None:
                failure = failure or message.error_message
        except grpc.RpcError as error:
            refusal = yield from self.judged(self.core.failure(error, budget, server), server, budget)
            raise refusal from error
        if failure:
            raise (yield from self.judged(from_text(failure), server, budget))

    def _health_of(self, server: Server, budget: Budget) -> Flow[Health]:
        calls = self.calls[server]
        if not (yield from self._says_yes(server, calls.live, _LIVE, "live", budget)):
            return Health(models=dict.fromkeys(MODELS, False))
        ready = yield from self._says_yes(server, calls.ready, _READY, "ready", budget)
        models = {}
        for model in MODELS:
            question = service_pb2.ModelReadyRequest(name=model)
            models[model] = yield from self._says_yes(server, calls.model_ready, question, "ready", budget)
        return Health(live=True, ready=ready, models=models)

    def _says_yes(
        self, server: Server, method: Callable[..., Any], question: Message, field: str, budget: Budget
    ) -> Flow[bool]:
        try:
            response = yield lambda: method(question, timeout=budget.connect_s())
        except grpc.RpcError as error:
            failure = self.core.failure(error, budget, server)
            if isinstance(failure, UnavailableError | DeadlineError | NotFoundError):
                return False
            raise failure from error
        except DeadlineError:
            return False
        return bool(getattr(response, field))
