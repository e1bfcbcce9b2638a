"""How a client talks: time, retries, TLS, the channel, and the options of a call. Values refuse nonsense when they are made.

Standard library alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from tritonrag_client.contract import Mode, Turn
from tritonrag_client.errors import BadRequestError

AnswerModel = Literal["generator", "rag"]

# Doubling past this is past every sensible `max_s`; it keeps 2**n a float for any number of attempts.
_MOST_DOUBLINGS: Final = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a call may take, in seconds.

    `connect_s` is for reaching the server when there is no connection yet. `total_s` is for everything: connecting, queueing,
    work, the whole stream, retries and the pauses between them. Raises BadRequestError where a value is not a positive finite
    number, or where connecting could take longer than everything.
    """

    connect_s: float = 5.0
    total_s: float = 120.0

    def __post_init__(self) -> None:
        _require_positive(self, "connect_s", "total_s")
        if self.connect_s > self.total_s:
            raise BadRequestError(
                f"connect_s ({self.connect_s:g}) is longer than total_s ({self.total_s:g}), which includes it; give both"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and how often to try again. Only errors whose `retryable` is true are tried again at all.

    So that retries never multiply the load of a server that has too much of it, a client has only so many: each request brings
    `share` of one, each second as much, and `spare` are there at the start, which is also the most that it saves up. Of n requests
    in t seconds at most spare + share * (n + t) are sent anew; then errors are raised at once. Going to another server because one
    is gone, drains or is not ready is no retry; nor is it where a request is lost with its server, but only the first time, for
    the request may be why.

    `attempts` counts all tries, so 1 means never again. The pause before try n + 1 is drawn between (1 - jitter) and 1 times
    min(max_s, base_s * 2**(n - 1)); jitter 1 is "full jitter", which spreads clients best after an outage
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    attempts: int = 4
    base_s: float = 0.1
    max_s: float = 2.0
    jitter: float = 1.0
    share: float = 0.1
    spare: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise BadRequestError(f"attempts is {self.attempts!r}; use a whole number of at least 1 (1 means no retry)")
        _require_positive(self, "base_s", "max_s")
        if self.base_s > self.max_s:
            raise BadRequestError(
                f"base_s ({self.base_s:g}) is longer than max_s ({self.max_s:g}), the longest pause; give both"
            )
        if not 0 <= self.jitter <= 1:
            raise BadRequestError(f"jitter is {self.jitter!r}; use 0 (no randomness) to 1 (full jitter)")
        if not 0 <= self.share <= 1:
            raise BadRequestError(
                f"share is {self.share!r}; use 0 to 1, what each request and each second bring of a retry"
            )
        if not isinstance(self.spare, int) or self.spare < 0:
            raise BadRequestError(f"spare is {self.spare!r}; use a whole number of at least 0")

    def pauses_s(self, draw: Callable[[], float], left_s: Callable[[], float]) -> Iterator[float]:
        """The pauses before the second and every later try, in seconds; ends early where a pause would outlast the deadline.

        `draw` gives a number in [0, 1), `left_s` the seconds until the deadline.
        """
        for retry in range(self.attempts - 1):
            longest_s = min(self.max_s, self.base_s * 2.0 ** min(retry, _MOST_DOUBLINGS))
            pause_s = longest_s * (1 - self.jitter * draw())
            if pause_s >= left_s():
                return
            yield pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """Files in PEM form. Nothing given means: trust the roots that gRPC ships, show no certificate of our own.

    `private_key` and `certificate_chain` (for mutual TLS) go together: one without the other raises BadRequestError.
    """

    root_certificates: Path | None = None
    private_key: Path | None = None
    certificate_chain: Path | None = None

    def __post_init__(self) -> None:
        for name in ("root_certificates", "private_key", "certificate_chain"):
            if not isinstance(path := getattr(self, name), Path | None):
                raise BadRequestError(f"{name} is {path!r}; give a pathlib.Path")
        if (self.private_key is None) != (self.certificate_chain is None):
            given, missing = ("private_key", "certificate_chain")[:: 1 if self.private_key else -1]
            raise BadRequestError(f"{given} is given without {missing}; mutual TLS needs both")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """The connection. Defaults suit Triton's own.

    `max_message_bytes` bounds one message in either direction. A ping after `keepalive_time_s` without traffic finds dead peers;
    one that is not answered within `keepalive_timeout_s` ends the connection. Triton hangs up on clients that ping more often than
    its `--grpc-http2-min-recv-ping-interval-without-data` (300 s): lower both together. `use_proxy` obeys http_proxy and
    its relatives in the environment; off, since a server of one's own is reached directly.
    """

    max_message_bytes: int = 64 * 1024 * 1024
    keepalive_time_s: float = 300.0
    keepalive_timeout_s: float = 20.0
    use_proxy: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.max_message_bytes, int) or not 0 < self.max_message_bytes < 2**31:
            raise BadRequestError(
                f"max_message_bytes is {self.max_message_bytes!r}; use a whole number from 1 to {2**31 - 1}"
            )
        _require_positive(self, "keepalive_time_s", "keepalive_timeout_s")


class SearchOptions(TypedDict, total=False):
    """Options of `search`; None is the same as not given.

    `num_passages`: how many passages for each question. `tenant`: whose passages may be seen beside everybody's. `filter`: a
    condition on the passages' metadata, sent as JSON. `mode`: by meaning ("dense"), by words ("lexical") or by both ("hybrid");
    without it as the index was built. `timeouts`: instead of the client's own.
    """

    num_passages: int | None
    tenant: str | None
    filter: Mapping[str, Any] | None
    mode: Mode | None
    timeouts: Timeouts | None


class AnswerOptions(SearchOptions, total=False):
    """Options of `ask` and `stream`: those of `search`, and how the answer is written.

    `max_tokens`, `temperature`, `top_p`, `seed`, `stop_words`, `lora_name`: as the server's engine takes them.
    `history`: what was said before, oldest first, as Turn or as mappings with `role` ("user" or "assistant") and `content`.
    `strict`: rather an error than an answer in which the server had to give something up (`degraded`).
    `request_id`: the name by which `cancel` finds the generation; a random one where none is given.

    The server keeps no conversation. One goes on by handing in what was asked and answered so far:

        turns = []
        for question in ("What is a closure?", "And when is it useful?"):
            answer = client.ask(question, history=turns)
            turns += [Turn(role="user", content=question), Turn(role="assistant", content=answer.text)]
    """

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop_words: Sequence[str]
    lora_name: str | None
    history: Sequence[Turn | Mapping[str, str]] | None
    strict: bool | None
    request_id: str | None


def _require_positive(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise BadRequestError(f"{name} is {value!r}; use a positive, finite number of seconds")


DEFAULT_TIMEOUTS: Final = Timeouts()
DEFAULT_RETRY: Final = RetryPolicy()
DEFAULT_CHANNEL: Final = ChannelOptions()
