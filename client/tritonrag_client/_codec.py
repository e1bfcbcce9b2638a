"""Tensors as they travel in Triton's gRPC messages (KServe v2, raw contents): little-endian numbers, strings as length and bytes.

Source: Triton's `grpc_service.proto`, ModelInferRequest.raw_input_contents and the binary form of BYTES elements.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from tritonrag_client._wire import Message
from tritonrag_client.errors import BadRequestError, InternalError

BYTES: Final = "BYTES"
_LENGTH = struct.Struct("<I")
# Triton's datatype: (struct format of one element, numpy dtype)
_NUMBERS: Final[dict[str, tuple[str, str]]] = {
    "BOOL": ("<?", "?"),
    "INT32": ("<i", "<i4"),
    "INT64": ("<q", "<i8"),
    "UINT64": ("<Q", "<u8"),
    "FP32": ("<f", "<f4"),
}


def encode_text(name: str, value: object) -> bytes:
    """One STRING element. Raises BadRequestError for what is not a str, or holds half of a surrogate pair."""
    if not isinstance(value, str):
        raise BadRequestError(f"{name} is {value!r}, a {type(value).__name__}; give a str")
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError(
            f"{name} holds {value[error.start]!r} at offset {error.start}, which UTF-8 can't express; remove it"
        ) from None
    return _LENGTH.pack(len(data)) + data


def encode_number(name: str, datatype: str, value: object) -> bytes:
    """One element of a number. Raises BadRequestError where it is none, or outside the datatype's range."""
    wants_bool = datatype == "BOOL"
    if isinstance(value, bool) != wants_bool:
        raise BadRequestError(f"{name} is {value!r}; give a {'bool' if wants_bool else 'number'}")
    try:
        return struct.pack(_NUMBERS[datatype][0], value)
    except (struct.error, OverflowError):
        raise BadRequestError(f"{name} is {value!r}, which does not fit in {datatype}") from None


def add_input(request: Message, name: str, datatype: str, shape: Sequence[int], data: bytes) -> None:
    """Append one input tensor, row-major, to a ModelInferRequest."""
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(data)


def decode_outputs(response: Message) -> dict[str, npt.NDArray[Any]]:
    """A ModelInferResponse's tensors by name; STRING tensors have dtype object and elements of bytes.

    Raises InternalError where the response contradicts itself.
    """
    if len(response.outputs) != len(response.raw_output_contents):
        raise InternalError(
            f"the server sent {len(response.outputs)} outputs with {len(response.raw_output_contents)} contents; is it a Triton?"
        )
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: _decode(output, data) for output, data in pairs}


def _decode(output: Message, data: bytes) -> npt.NDArray[Any]:
    try:
        if output.datatype == BYTES:
            flat: npt.NDArray[Any] = np.array(_split(data), dtype=np.object_)
        else:
            flat = np.frombuffer(data, dtype=_NUMBERS[output.datatype][1])
        return flat.reshape(tuple(output.shape))
    except (KeyError, ValueError, struct.error):
        raise InternalError(
            f"output {output.name} ({output.datatype} {list(output.shape)}, {len(data)} bytes) is not a tensor of the contract;"
            " do client and server have the same version?"
        ) from None


def _split(data: bytes) -> list[bytes]:
    elements, offset = [], 0
    while offset < len(data):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size + length
        elements.append(data[offset - length : offset])
    if offset != len(data):
        raise ValueError(offset)
    return elements


def new_request(model: str, request_id: str = "") -> Message:
    """An empty ModelInferRequest."""
    return service_pb2.ModelInferRequest(model_name=model, id=request_id)
