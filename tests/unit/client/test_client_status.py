"""Each of gRPC's statuses and Triton's texts is one error of ours."""

import grpc
import pytest

from tritonrag_client import (
    BadRequestError,
    DeadlineError,
    DeniedError,
    InternalError,
    NotFoundError,
    OverloadedError,
    RagError,
    RequestCancelledError,
    UnavailableError,
)
from tritonrag_client._status import from_status, from_text

Code = grpc.StatusCode
BY_STATUS = {
    Code.CANCELLED: RequestCancelledError,
    Code.UNKNOWN: InternalError,
    Code.INVALID_ARGUMENT: BadRequestError,
    Code.DEADLINE_EXCEEDED: DeadlineError,
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: BadRequestError,
    Code.PERMISSION_DENIED: DeniedError,
    Code.RESOURCE_EXHAUSTED: OverloadedError,
    Code.FAILED_PRECONDITION: BadRequestError,
    Code.ABORTED: UnavailableError,
    Code.OUT_OF_RANGE: BadRequestError,
    Code.UNIMPLEMENTED: BadRequestError,
    Code.INTERNAL: InternalError,
    Code.UNAVAILABLE: UnavailableError,
    Code.DATA_LOSS: InternalError,
    Code.UNAUTHENTICATED: DeniedError,
}
# Texts as Triton 2.51.0 and gRPC 1.85 send them.
BY_TEXT = [
    (Code.UNAVAILABLE, "Exceeds maximum queue size", OverloadedError),
    (Code.UNAVAILABLE, "[request id: <id_unknown>] Exceeds maximum queue size", OverloadedError),
    (Code.UNAVAILABLE, "Request timeout expired", DeadlineError),
    (Code.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-key'", DeniedError),
    (Code.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused", UnavailableError),
    (Code.INTERNAL, "in ensemble 'rag', Stub process 'embedder_0_1' is not healthy.", UnavailableError),
    (Code.NOT_FOUND, "Request for unknown model: 'generator' has no available versions", UnavailableError),
    (Code.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (2026 vs. 1000)", BadRequestError),
]
IN_A_STREAM = [
    ("Request for unknown model: 'x' is not found", NotFoundError),
    ("Request for unknown model: 'x' has no available versions", UnavailableError),
    (
        "[request id: 7] unexpected shape for input 'text_input' for model 'generator'. Expected [1], got [2].",
        BadRequestError,
    ),
    (
        "[request id: 7] inference input 'text_input' data-type is 'FP32', but model 'generator' expects 'BYTES'",
        BadRequestError,
    ),
    ("[request id: 7] expected number of inputs between 1 and 12 but got 0 inputs for model 'rag'.", BadRequestError),
    ("unexpected inference input 'zzz' for model 'generator'", BadRequestError),
    ("[request id: 7] incomplete string length indicator for inference input 'text_input'", BadRequestError),
    ("in ensemble 'rag', Exceeds maximum queue size", OverloadedError),
    ("in ensemble 'rag', Stub process 'embedder_0_1' is not healthy.", UnavailableError),
    (
        "in ensemble 'rag', [request id: 7] Server is stopping, scheduler for model has stopped accepting new inference requests",
        UnavailableError,
    ),
    ("Server exiting", UnavailableError),
    ("something new", InternalError),
    ("", InternalError),
]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_each_status_means_one_error(code: grpc.StatusCode) -> None:
    assert type(from_status(code, "the reason")) is BY_STATUS[code]
    assert from_status(code, "the reason").message == "the reason"


@pytest.mark.parametrize(("code", "text", "expected"), BY_TEXT)
def test_a_status_of_many_meanings_is_told_apart_by_its_text(
    code: grpc.StatusCode, text: str, expected: type[RagError]
) -> None:
    assert type(from_status(code, text)) is expected


@pytest.mark.parametrize(("text", "expected"), IN_A_STREAM)
def test_in_a_stream_the_text_alone_tells(text: str, expected: type[RagError]) -> None:
    assert type(from_text(text)) is expected


def test_what_triton_says_of_itself_may_be_answered_elsewhere_and_what_a_model_says_may_not() -> None:
    assert from_status(Code.UNAVAILABLE, "Server exiting").elsewhere
    assert from_text("Stub process 'embedder_0_1' is not healthy.").elsewhere
    assert not from_status(Code.UNAVAILABLE, "unavailable: the engine went away").elsewhere
    assert not from_text("in ensemble 'rag', unavailable: the engine went away").elsewhere


def test_a_code_of_ours_decides_over_the_status() -> None:
    assert type(from_status(Code.UNAVAILABLE, "deadline: the engine took 5 s")) is DeadlineError
    nested = "[request id: a] in ensemble 'rag', in ensemble 'retrieve', denied: tenant 'x' is not yours"
    assert type(from_status(Code.INVALID_ARGUMENT, nested)) is DeniedError
    assert from_text(nested).message == "tenant 'x' is not yours"


def test_a_text_that_quotes_another_does_not_change_what_the_status_says() -> None:
    assert type(from_status(Code.INVALID_ARGUMENT, "unexpected input 'Request timeout expired'")) is BadRequestError


@pytest.mark.parametrize("details", [None, "", "[request id: 7] "])
def test_an_error_without_a_text_still_says_something(details: str | None) -> None:
    assert "INTERNAL" in from_status(Code.INTERNAL, details).message


def test_a_traceback_of_the_server_is_cut_off() -> None:
    text = "in ensemble 'rag', Failed to process the request(s), message: ValueError: x\n\nAt:\n  /srv/model.py(10): execute\n"
    assert from_text(text).message == "Failed to process the request(s), message: ValueError: x"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("Socket closed", True),
        ("in ensemble 'rag', Stub process 'embedder_0_1' is not healthy.", True),
        ("failed to connect to all addresses; last error: Connection refused", False),
        ("Server exiting", False),
        ("Server not ready", False),
        ("[request id: 7] Server is stopping, scheduler for model has stopped", False),
        ("Request for unknown model: 'generator' has no available versions", False),
        ("unavailable: the engine went away", False),
    ],
)
def test_a_request_on_which_work_may_have_begun_is_told_apart(text: str, lost: bool) -> None:
    assert from_status(Code.UNAVAILABLE, text).lost is lost
