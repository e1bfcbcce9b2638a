"""gRPC's failures as ours.

Models of ours send a message that begins with our code, and that decides. For the rest gRPC's status decides; a few statuses
mean several things in Triton, and a stream's failures have none at all: there the text tells (read off server 2.51.0).
"""

import re
from typing import Final

import grpc

from tritonrag_client._wire import GrpcFailure
from tritonrag_client.errors import (
    BadRequestError,
    DeadlineError,
    DeniedError,
    InternalError,
    NotFoundError,
    OverloadedError,
    RagError,
    RequestCancelledError,
    UnavailableError,
    parse_error,
    without_ensemble_prefix,
)

# Triton puts the request's id before its own messages, and a Python model's traceback after them.
_REQUEST_ID = re.compile(r"^\[request id: [^\]]*\] ")
_TRACEBACK = "\n\nAt:\n"
_UNKNOWN_MODEL: Final = "Request for unknown model"

# The statuses that mean several things, and the parts of Triton's or gRPC's text that tell which.
_AMBIGUOUS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_TEXTS: Final[tuple[tuple[re.Pattern[str], type[RagError]], ...]] = (
    (re.compile("exceeds maximum queue size", re.IGNORECASE), OverloadedError),
    (re.compile("request timeout expired", re.IGNORECASE), DeadlineError),
    (re.compile("protocol is restricted"), DeniedError),
    (
        re.compile("^Stub process .* is not healthy"),
        UnavailableError,
    ),  # a model's process died; reloading the model mends it
    (re.compile("has no available versions"), UnavailableError),  # the model is being loaded or unloaded
    (
        re.compile("^Server (exiting|is stopping|not ready)"),
        UnavailableError,
    ),  # after SIGTERM, while what had begun ends
    (re.compile("message larger than max"), BadRequestError),  # over max_message_bytes, ours or the server's
)
# What Triton and gRPC say of a request on which no work was begun. Whatever else takes a server away may be that request's doing.
_NOT_BEGUN: Final = re.compile(
    "^Server (exiting|is stopping|not ready)|has no available versions"
    "|^(failed to connect to all addresses|connections to all backends failing|DNS resolution failed)"
)
# What else Triton says in a stream, where it gives no status.
_STREAM_TEXTS: Final[tuple[tuple[re.Pattern[str], type[RagError]], ...]] = (
    *_TEXTS,
    (re.compile(f"^{_UNKNOWN_MODEL}"), NotFoundError),
    (re.compile("^(unexpected|expected|incomplete string|inference (input|request)) "), BadRequestError),
)

_STATUSES: Final[dict[grpc.StatusCode, type[RagError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: BadRequestError,
    grpc.StatusCode.OUT_OF_RANGE: BadRequestError,
    grpc.StatusCode.ALREADY_EXISTS: BadRequestError,
    grpc.StatusCode.UNIMPLEMENTED: BadRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.CANCELLED: RequestCancelledError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.ABORTED: UnavailableError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}


def from_status(code: grpc.StatusCode, details: str | None) -> RagError:
    """The error that a gRPC status means."""
    text = _clean(details or "")
    if (ours := parse_error(text)) is not None:
        return ours
    by_text = _by_text(text, _TEXTS) if code in _AMBIGUOUS else None
    kind = by_text or _STATUSES.get(code, InternalError)
    return _triton_said(kind, text or f"the server gave no reason but {code.name}")


def from_text(text: str) -> RagError:
    """The error that the text of a failed stream means."""
    text = _clean(text)
    return parse_error(text) or _triton_said(
        _by_text(text, _STREAM_TEXTS) or InternalError, text or "the server gave no reason"
    )


def from_call(error: GrpcFailure) -> RagError:
    """The error that a failed gRPC call means."""
    return from_status(error.code(), error.details())


def knows_no_model(error: RagError) -> bool:
    """Whether Triton says that it has no such model, which it also says of each while it drains."""
    return isinstance(error, NotFoundError) and error.message.startswith(_UNKNOWN_MODEL)


def _triton_said(kind: type[RagError], text: str) -> RagError:
    """An error that no model of ours sent."""
    if kind is UnavailableError:
        return UnavailableError(text, elsewhere=True, lost=_NOT_BEGUN.search(text) is None)
    return kind(text)


def _by_text(text: str, table: tuple[tuple[re.Pattern[str], type[RagError]], ...]) -> type[RagError] | None:
    return next((error_type for pattern, error_type in table if pattern.search(text)), None)


def _clean(text: str) -> str:
    """Without what Triton put around the message."""
    text = without_ensemble_prefix(_REQUEST_ID.sub("", text))
    return _REQUEST_ID.sub("", text).partition(_TRACEBACK)[0].strip()
