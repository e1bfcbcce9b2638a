"""What a client was made with, the state of its connection, and what its failures mean. Knows no `await`."""

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import grpc

from tritonrag_client._allowance import RetryAllowance
from tritonrag_client._answers import AnswerProgress
from tritonrag_client._budget import Budget, Tries
from tritonrag_client._channel import Calls, open_channel, require_addresses
from tritonrag_client._requests import answer_request
from tritonrag_client._servers import Server, Servers
from tritonrag_client._status import from_call
from tritonrag_client._wire import GrpcChannel, GrpcFailure, GrpcModule, Message
from tritonrag_client.contract import RAG
from tritonrag_client.errors import BadRequestError, DeadlineError, RagError, RequestCancelledError, UnavailableError
from tritonrag_client.options import AnswerModel, ChannelOptions, RetryPolicy, Timeouts, TlsOptions

DEFAULT_URL: Final = "127.0.0.1:8001"
# How long leaving an answer early may take, on top of the call's own time: for telling the server to stop and for reading the
# rest. A healthy server needs some milliseconds; a reader is not held up for longer by one that is not.
LEAVE_S: Final = 1.0
# How long a server may take to say that it is ready, where another is left to go to. gRPC goes on connecting meanwhile, so that one
# that is merely far away is there the next time. After RFC 8305 (Happy Eyeballs), whose delay between two addresses this is.
ASIDE_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client was made with."""

    url: str | Sequence[str]
    timeouts: Timeouts
    retry: RetryPolicy
    tls: TlsOptions | None
    channel: ChannelOptions
    model: AnswerModel

    def __post_init__(self) -> None:
        require_addresses(self.url)
        if self.model not in get_args(AnswerModel):
            raise BadRequestError(f"model is {self.model!r}; use one of {', '.join(get_args(AnswerModel))}")
        for name, kind in (("timeouts", Timeouts), ("retry", RetryPolicy), ("channel", ChannelOptions)):
            if not isinstance(getattr(self, name), kind):
                raise BadRequestError(f"{name} is {getattr(self, name)!r}; give a {kind.__name__}(...)")
        if not isinstance(self.tls, TlsOptions | None):
            raise BadRequestError(f"tls is {self.tls!r}; give a TlsOptions(...)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """Time and luck, which tests replace: monotonic seconds, and numbers in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random


REAL_CHANCE: Final = Chance()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """One answer to be had: the message to send, how far it is, and its time."""

    request: Message
    progress: AnswerProgress
    budget: Budget
    tries: Tries
    tenant: str | None


class ClientCore:
    """State and decisions of a client, for either flavour of gRPC."""

    def __init__(self, settings: ClientSettings, chance: Chance) -> None:
        self.settings = settings
        servers = [Server(url) for url in require_addresses(settings.url)]
        self.servers = Servers(servers, chance.clock, first=int(chance.draw() * len(servers)))
        self._allowance = RetryAllowance(settings.retry, chance.clock)
        self._chance = chance
        self._closed = False

    def open(self, flavour: GrpcModule) -> tuple[list[GrpcChannel], dict[Server, Calls]]:
        """Channels of the module grpc or grpc.aio, and each server's calls.

        A channel for each server: gRPC's own choice among addresses (round_robin) knows only which connections stand, and a Triton
        that drains still takes connections.
        """
        channels = [
            open_channel(flavour, server.url, self.settings.tls, self.settings.channel) for server in self.servers
        ]
        return channels, {server: Calls(channel) for server, channel in zip(self.servers, channels, strict=True)}

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def require_open(self) -> None:
        """Raises BadRequestError after `close`."""
        if self._closed:
            raise BadRequestError("this client is closed; make a new one")

    def budget(self, timeouts: Timeouts | None) -> Budget:
        """The time of a call that begins now. Raises BadRequestError after `close`."""
        self.require_open()
        if not isinstance(timeouts, Timeouts | None):
            raise BadRequestError(f"timeouts is {timeouts!r}; give a Timeouts(connect_s=..., total_s=...)")
        return Budget(timeouts or self.settings.timeouts, self._chance.clock)

    def leave_budget(self) -> Budget:
        """The time for leaving an answer, LEAVE_S from now."""
        return Budget(Timeouts(connect_s=LEAVE_S, total_s=LEAVE_S), self._chance.clock)

    def tries(self, budget: Budget, server: Server | None = None) -> Tries:
        """The tries of a call with this budget, at any server or only at this one."""
        servers = self.servers if server is None else self.servers.only(server)
        return Tries(self.settings.retry, budget, self._chance.draw, allowance=self._allowance, servers=servers)

    def answer(self, question: str, options: Mapping[str, Any], *, stream: bool) -> AnswerJob:
        """Everything that an answer needs, checked; nothing is sent yet."""
        rest = dict(options)
        budget = self.budget(rest.pop("timeouts", None))
        request_id = rest.pop("request_id", None) or uuid.uuid4().hex
        if not isinstance(request_id, str):
            raise BadRequestError(f"request_id is {request_id!r}; give a str")
        request = answer_request(self.settings.model, question, request_id, rest, stream=stream)
        tries = self.tries(budget)
        progress = AnswerProgress(request_id, tries, survives_us=self.settings.model == RAG)
        return AnswerJob(request=request, progress=progress, budget=budget, tries=tries, tenant=rest.get("tenant"))

    def failure(self, error: GrpcFailure, budget: Budget, server: Server) -> RagError:
        """What a failed call means. Notes a server that did not answer, so that the next try makes sure of it."""
        if self._closed:
            return RequestCancelledError("the client was closed while the request ran")
        failure, code = from_call(error), error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.servers.unanswered(server)
            return budget.spent()
        if code is grpc.StatusCode.UNAVAILABLE and isinstance(failure, UnavailableError):
            if failure.elsewhere:
                self.servers.unanswered(server)
            text = f"{failure.message} (server {server.url})"
            return UnavailableError(text, elsewhere=failure.elsewhere, lost=failure.lost)
        return failure

    def judge_connecting(self, error: GrpcFailure, budget: Budget, server: Server) -> None:
        """Take a failed question whether a server lives or is ready: any answer at all proves the connection.

        Raises UnavailableError where none came, DeadlineError where the whole time is spent with that.
        """
        failure = self.failure(error, budget, server)
        if isinstance(failure, DeadlineError):
            budget.remaining_s()
            raise UnavailableError(
                f"{server.url} did not answer within connect_s; does a Triton listen there?", elsewhere=True
            ) from error
        if isinstance(failure, UnavailableError):  # no request was lost with it
            raise UnavailableError(failure.message, elsewhere=failure.elsewhere) from error
        if isinstance(failure, RequestCancelledError):
            raise failure from error
