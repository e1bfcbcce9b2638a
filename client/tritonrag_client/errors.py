"""Every way in which a request can fail, as one tree.

    RagError                    code           Triton status      a retry can help
    ├── BadRequestError         bad_request    INVALID_ARG        no
    ├── NotFoundError           not_found      NOT_FOUND          no
    ├── OverloadedError         overloaded     UNAVAILABLE        yes
    ├── DeadlineError           deadline       UNAVAILABLE        no: the time is spent
    ├── RequestCancelledError   cancelled      CANCELLED          no
    ├── UnavailableError        unavailable    UNAVAILABLE        yes
    ├── DeniedError             denied         INVALID_ARG        no
    └── InternalError           internal       INTERNAL           no

On the wire an error is Triton's status code and a message that begins with our code: `bad_request: num_passages is 0; ...`.
Triton has no status for a spent deadline and none for a denied request, so there the message alone tells.
Standard library alone: a model process that raises one of these must not load a gRPC client.
"""

import re
from typing import ClassVar

# An ensemble puts its own name before the message of the step that failed; nested ensembles do so repeatedly.
_ENSEMBLE_PREFIX = re.compile(r"^(?:in ensemble '[^']*', )+")
_CODED = re.compile(r"^(?P<code>[a-z_]+): (?P<message>.*)$", re.DOTALL)


class RagError(Exception):
    """A request failed.

    `message` is for the person who can act on it: what was wrong, with which value, and what to do.
    `code` is stable and meant for programs; `retryable` tells whether the same request can succeed later.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class BadRequestError(RagError):
    """The request itself is wrong and will fail again as it stands."""

    code = "bad_request"


class NotFoundError(RagError):
    """A model, an index or a running generation that the request names does not exist."""

    code = "not_found"


class OverloadedError(RagError):
    """The server refused the request because its queues are full."""

    code = "overloaded"
    retryable = True


class DeadlineError(RagError):
    """The request's time was spent before the answer was complete."""

    code = "deadline"


class RequestCancelledError(RagError):
    """The request was cancelled, by its caller or by a `stop` request."""

    code = "cancelled"


class UnavailableError(RagError):
    """The server can't be reached or is not ready.

    `elsewhere` tells whether this server itself is gone, drains or is not ready, rather than that a model of it could not do its
    work: another server may answer at once. `lost` tells whether it had the request by then, or may have had it: the process that
    worked on it died, or the connection broke. Then the request may be why, and would do the same to others.
    """

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, *, elsewhere: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.elsewhere, self.lost = elsewhere, lost


class DeniedError(RagError):
    """The caller is not allowed to do this."""

    code = "denied"


class InternalError(RagError):
    """The server failed in a way that no request should cause."""

    code = "internal"


ERROR_TYPES: dict[str, type[RagError]] = {
    error.code: error
    for error in (
        BadRequestError,
        NotFoundError,
        OverloadedError,
        DeadlineError,
        RequestCancelledError,
        UnavailableError,
        DeniedError,
        InternalError,
    )
}


def parse_error(text: str) -> RagError | None:
    """Read an error of ours back from a server's message; None where the message does not carry one of our codes."""
    match = _CODED.match(_ENSEMBLE_PREFIX.sub("", text))
    if match is None or match["code"] not in ERROR_TYPES:
        return None
    return ERROR_TYPES[match["code"]](match["message"])


def without_ensemble_prefix(text: str) -> str:
    """A server's message without the ensembles' names that Triton put before it."""
    return _ENSEMBLE_PREFIX.sub("", text)
