"""The edge between Triton and the inner library: tensors in, tensors out, errors that a client may see.

What leaves here never bears a path, a line number or a traceback: an error of our tree goes out as it is, anything else
is logged in full and goes out as `internal`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonrag_client.errors import BadRequestError, InternalError, RagError, RequestCancelledError

T = TypeVar("T")

# Our codes as attributes of pb_utils.TritonError. Triton fills that module only after a model's own was imported, so its names
# are looked up inside functions alone, here and in every module of this room (hence the annotations that are never evaluated).
_TRITON_CODES = {
    "bad_request": "INVALID_ARG",
    "not_found": "NOT_FOUND",
    "overloaded": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "deadline": "UNAVAILABLE",  # Triton has no code of its own for a spent deadline
    "cancelled": "CANCELLED",
    "denied": "INVALID_ARG",  # nor for a denied request
    "internal": "INTERNAL",
}


def error_response(error: Exception, model: str) -> pb_utils.InferenceResponse:
    """The response that carries `error` to the client."""
    if not isinstance(error, RagError):
        pb_utils.Logger.log_error(f"{model}: " + "".join(traceback.format_exception(error)))
        error = InternalError(f"the {model} failed on this request; the server's log tells why")
    code = getattr(pb_utils.TritonError, _TRITON_CODES[error.code])
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def serve_batch(
    requests: Sequence[pb_utils.InferenceRequest],
    model: str,
    read: Callable[[pb_utils.InferenceRequest], T],
    work: Callable[[list[T]], list[list[pb_utils.Tensor]]],
) -> list[pb_utils.InferenceResponse]:
    """Answer the requests of one Triton batch with one call of `work`; each bad request fails alone.

    `read` takes a request apart and raises RagError where it is bad. `work` gives the output tensors of each good one.
    Should `work` fail on the batch, it is tried on each request by itself, so that none pays for another's fault.
    """
    answers: dict[int, pb_utils.InferenceResponse] = {}
    good: dict[int, T] = {}
    for position, request in enumerate(requests):
        try:
            _refuse_cancelled(request)
            good[position] = read(request)
        except Exception as error:  # noqa: BLE001 - the model's edge
            answers[position] = error_response(error, model)
    answers.update(_work_together_or_alone(good, model, work))
    return [answers[position] for position in range(len(requests))]


def _refuse_cancelled(request: pb_utils.InferenceRequest) -> None:
    """Asking takes a message to Triton and back, about 30 us: less than the work that a client who left would cost.

    Triton's batcher forms a batch while all instances are busy, and doesn't look again.
    """
    if request.is_cancelled():
        raise RequestCancelledError("the request was cancelled before its turn came")


def _work_together_or_alone(
    good: dict[int, T], model: str, work: Callable[[list[T]], list[list[pb_utils.Tensor]]]
) -> dict[int, pb_utils.InferenceResponse]:
    if not good:
        return {}
    try:
        outputs = work(list(good.values()))
    except Exception as error:  # noqa: BLE001 - the model's edge
        if len(good) == 1:
            return {position: error_response(error, model) for position in good}
        answers: dict[int, pb_utils.InferenceResponse] = {}
        for position, item in good.items():
            answers.update(_work_together_or_alone({position: item}, model, work))
        return answers
    return {position: pb_utils.InferenceResponse(tensors) for position, tensors in zip(good, outputs, strict=True)}


def array_of(request: pb_utils.InferenceRequest, name: str) -> np.ndarray[Any, Any] | None:
    """The input tensor's array, or None where the request has no such input."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def texts_of(request: pb_utils.InferenceRequest, name: str, limit_bytes: int, limit_name: str) -> list[str] | None:
    """The elements of a STRING input, or None where it is absent.

    Raises BadRequestError for an element over the limit, with invalid UTF-8 or with a NUL character.
    """
    array = array_of(request, name)
    return None if array is None else [_text(raw, name, limit_bytes, limit_name) for raw in array.ravel()]


def _text(raw: bytes | str, name: str, limit_bytes: int, limit_name: str) -> str:
    data = raw.encode() if isinstance(raw, str) else raw
    if len(data) > limit_bytes:
        raise BadRequestError(
            f"{name} has {len(data)} bytes; send at most {limit_bytes}, or raise {limit_name} on the server"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; send UTF-8"
        ) from None
    if (offset := text.find("\0")) >= 0:
        raise BadRequestError(f"{name} has a NUL character at offset {offset}; remove it")
    return text


def require_text(text: str | None, name: str) -> str:
    """The text itself. Raises BadRequestError where it is missing, empty or blank."""
    if not text or text.isspace():
        state = "missing" if text is None else repr(text[:20])
        raise BadRequestError(f"{name} is {state}; send a text that is not blank")
    return text


def scalar_of(request: pb_utils.InferenceRequest, name: str) -> Any:  # noqa: ANN401 - the tensor's own type
    """The first element of an input as a Python value, or None where it is absent. Raises BadRequestError for an empty tensor."""
    array = array_of(request, name)
    if array is None:
        return None
    if array.size == 0:
        raise BadRequestError(f"{name} is empty; send one value or leave it out")
    return array.ravel()[0].item()


def strings_tensor(name: str, values: Sequence[bytes | str], shape: tuple[int, ...]) -> pb_utils.Tensor:
    """A STRING output tensor."""
    return pb_utils.Tensor(name, np.array(values, dtype=np.object_).reshape(shape))
