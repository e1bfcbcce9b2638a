"""Tensors go out and come back unchanged; what is none is refused."""

import re
import struct

import numpy as np
import pytest
from client_double import Value
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tritonrag_client import BadRequestError, InternalError
from tritonrag_client._codec import add_input, decode_outputs, encode_number, encode_text

NUMBERS = {
    "BOOL": st.booleans(),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP32": st.floats(width=32, allow_nan=False),
}


def there_and_back(datatype: str, shape: list[int], data: bytes) -> np.ndarray:
    """What the client reads of a response that holds what it sent."""
    request = service_pb2.ModelInferRequest()
    add_input(request, "x", datatype, shape, data)
    sent = service_pb2.ModelInferRequest.FromString(request.SerializeToString())
    response = service_pb2.ModelInferResponse(raw_output_contents=sent.raw_input_contents)
    response.outputs.add(name="x", datatype=datatype, shape=sent.inputs[0].shape)
    return decode_outputs(response)["x"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_as_they_went(texts: list[str]) -> None:
    array = there_and_back("BYTES", [len(texts)], b"".join(encode_text("x", text) for text in texts))
    assert [item.decode() for item in array] == texts


@given(st.data())
@pytest.mark.parametrize("datatype", sorted(NUMBERS))
def test_numbers_come_back_as_they_went(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(NUMBERS[datatype]))
    array = there_and_back(
        datatype, [len(values), 1], b"".join(encode_number("x", datatype, value) for value in values)
    )
    assert array.shape == (len(values), 1)
    assert array.ravel().tolist() == values


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT32", 2**31),
        ("INT32", 1.5),
        ("INT32", "1"),
        ("INT32", True),
        ("INT64", 2**63),
        ("UINT64", -1),
        ("FP32", 1e39),
        ("BOOL", 1),
    ],
)
def test_a_number_that_does_not_fit_is_refused_with_its_value(datatype: str, value: Value) -> None:
    with pytest.raises(BadRequestError, match=re.escape(f"x is {value!r}")):
        encode_number("x", datatype, value)


def response(datatype: str, shape: list[int], data: bytes) -> service_pb2.ModelInferResponse:
    message = service_pb2.ModelInferResponse(raw_output_contents=[data])
    message.outputs.add(name="x", datatype=datatype, shape=shape)
    return message


@given(
    datatype=st.sampled_from(["BYTES", *NUMBERS, "FP99"]),
    shape=st.lists(st.integers(-2, 5), max_size=3),
    data=st.binary(max_size=64),
)
def test_any_bytes_of_a_server_are_a_tensor_or_an_internal_error(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        array = decode_outputs(response(datatype, shape, data))["x"]
    except InternalError as error:
        assert "output x" in error.message  # noqa: PT017 - either outcome is right
    else:
        assert array.ndim == len(shape)


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\x01\0\0", struct.pack("<I", 2**32 - 1)])
def test_a_string_that_is_cut_off_is_an_internal_error(data: bytes) -> None:
    with pytest.raises(InternalError, match="output x"):
        decode_outputs(response("BYTES", [1], data))
