"""What goes wrong with the server behind, as the errors that our callers see, and what follows from each.

    what came                                   error              tried again  counts against the server
    no connection, cut off, 408, 409, 425, 5xx  UnavailableError   yes          yes
    429                                         OverloadedError    yes          no: it is alive
    400, 413, 422                               BadRequestError    no           no
    401, 403, 404, 3xx, any other status        UnavailableError   no           yes: it will be so for every request
    no event stream, garbage in it              InternalError      no           yes
    a time budget spent                         DeadlineError      no           yes

A 404, or a 400 that names our model, is the setting's fault, unless the request itself asked for that model by `lora_name`.
"""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import SecretStr

from tritonrag_client.errors import BadRequestError, InternalError, OverloadedError, RagError, UnavailableError

_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})
_THE_REQUEST = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
_OUR_FIELDS = ("cache_salt", "stream_options")  # what no request of ours has a say in
_EXCERPT_CHARACTERS = 200
_KEY_WINDOW = 6  # characters of the key in a row that are too many to show


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An error, whether another try can help, and whether it counts against the server. `log` is for the log alone."""

    error: RagError
    again: bool = False
    counts: bool = True
    retry_after_s: float | None = None
    log: str = ""


class ServerFailure(Exception):  # noqa: N818 - it never leaves the engine; `verdict.error` does
    """A try failed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict.error))
        self.verdict = verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges answers to requests for `model`; `secret` is what no message may hold, empty where there is none."""

    model: str
    secret: SecretStr

    def excerpt(self, text: str) -> str:
        """The beginning of what a server said, fit to be shown."""
        secret = self.secret.get_secret_value()
        windows = range(max(len(secret) - _KEY_WINDOW, 0) + 1) if secret else ()
        if any(secret[at : at + _KEY_WINDOW] in text for at in windows):
            return "(not shown: it holds the key)"
        folded = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _EXCERPT_CHARACTERS]).split())
        return folded if len(folded) <= _EXCERPT_CHARACTERS else f"{folded[:_EXCERPT_CHARACTERS]}..."

    def status(
        self, status: int, body: str, *, retry_after_s: float | None = None, named: bool = False
    ) -> ServerFailure:
        """An answer with an HTTP status that is no success. `named`: the request itself named the model."""
        said = self.excerpt(message_of(body))
        log = f"it answered with status {status}: {said or '(nothing)'}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            error: RagError = OverloadedError(
                "the language model's server has no place for this answer; try again later"
            )
            return ServerFailure(Verdict(error=error, again=True, counts=False, retry_after_s=retry_after_s, log=log))
        if status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            error = UnavailableError(f"the language model's server failed with status {status}; try again")
            return ServerFailure(Verdict(error=error, again=True, retry_after_s=retry_after_s, log=log))
        if (status in _THE_REQUEST and not self._our_fault(said, named)) or (status == HTTPStatus.NOT_FOUND and named):
            error = BadRequestError(f"the language model's server refused the request: {said or f'status {status}'}")
            return ServerFailure(Verdict(error=error, counts=False, log=log))
        return ServerFailure(Verdict(error=_misconfigured(status), log=f"{log}. {_WAYS_OUT.get(status, _CHECK_URL)}"))

    def _our_fault(self, said: str, named: bool) -> bool:
        quoted = re.search(rf"['\"`]{re.escape(self.model)}['\"`]", said) is not None
        return any(field in said for field in _OUR_FIELDS) or (quoted and not named)

    def garbage(self, what: str, text: str) -> ServerFailure:
        """An answer that is not what the API promises."""
        error = InternalError(f"the language model's server sent {what}: {self.excerpt(text)}")
        return ServerFailure(Verdict(error=error, log=f"it sent {what}: {self.excerpt(text)}"))

    def told(self, told: object, *, named: bool = False) -> ServerFailure:
        """An error that came inside an answer that had begun well: an object with a message and perhaps a code, or a text."""
        code = told.get("code") if isinstance(told, dict) else None
        status = code if isinstance(code, int) and code >= HTTPStatus.BAD_REQUEST else HTTPStatus.INTERNAL_SERVER_ERROR
        return self.status(status, json.dumps({"error": told}), named=named)


_CHECK_URL = "Is TRITONRAG_OPENAI_URL the address of an OpenAI-compatible server, up to /v1?"
_WAYS_OUT: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Set TRITONRAG_OPENAI_API_KEY.",
    HTTPStatus.FORBIDDEN: "Set TRITONRAG_OPENAI_API_KEY.",
    HTTPStatus.BAD_REQUEST: "Check TRITONRAG_OPENAI_MODEL and TRITONRAG_OPENAI_CACHE_SALT.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Check TRITONRAG_OPENAI_MODEL and TRITONRAG_OPENAI_CACHE_SALT.",
    HTTPStatus.NOT_FOUND: "Check TRITONRAG_OPENAI_MODEL and TRITONRAG_OPENAI_URL.",
}


def _misconfigured(status: int) -> UnavailableError:
    return UnavailableError(
        f"the language model's server refuses every request like this one (status {status}); the operator's log tells why"
    )


def cut_off(log: str) -> ServerFailure:
    """The answer broke off."""
    error = UnavailableError("the language model's server broke the answer off; try again")
    return ServerFailure(Verdict(error=error, again=True, log=log))


def unreachable(log: str) -> ServerFailure:
    """No connection, or one that ended before there was an answer."""
    error = UnavailableError("the language model's server can't be reached; try again later")
    return ServerFailure(Verdict(error=error, again=True, log=log))


def message_of(body: str) -> str:
    """What an error's body says: OpenAI's, vLLM's, FastAPI's and Ollama's forms; the body itself where it has none of them."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "an HTML page" if body.lstrip()[:1] == "<" else body
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return value if isinstance(value, str) else json.dumps(value)
