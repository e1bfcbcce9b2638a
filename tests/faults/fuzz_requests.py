"""Requests that no client of ours would send: good ones of each model, bent in one to four ways, and bytes that are none.

What kills Triton 2.51 itself is left out, each with its reason beside it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.faults.hostile import MODELS, QUESTION
from tests.server.wire import request

Draw = Callable[[st.SearchStrategy[Any]], Any]

_BATCHED: Final = {"embedder", "retriever", "retrieve"}
_TEXTS: Final = ("text_input", "tenant", "filter", "mode", "lora_name", "history", "input_type", "retrieval_degraded")
_DATATYPES: Final = (
    "", "BYTES", "BOOL", "INT8", "INT32", "INT64", "UINT8", "UINT64", "FP16", "FP32", "FP64", "BF16", "STRING", "int32", "\u2603",
)  # fmt: skip
_DIMS: Final = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 64, 65, 384, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1)
# Triton gives these a meaning of its own. Not among them is `triton_grpc_error`: as a stream's metadata it kills the server
# (docs/triton-notes.md); a parameter it is not.
_PARAMETERS: Final = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_size", "binary_data",
    "binary_data_output", "classification", "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset",
    "triton_enable_empty_final_response", "triton_final_response", "max_tokens", "colour", "", "\u0000", "\u202e",
)  # fmt: skip
# No slash and no full stop: whatever an error quotes is told from what it leaks.
_CHARACTERS: Final = st.characters(exclude_characters="/.", exclude_categories=("Cs",))
_ODD_TEXTS: Final = st.one_of(
    st.text(_CHARACTERS, max_size=40),
    st.sampled_from(
        ("", " ", "\0", "\u202eevil", "e\u0301" * 20, "\U0001f469\u200d\U0001f680", "word " * 2000, "x" * 40_000)
    ),
)
_FILTERS: Final = st.sampled_from(
    (
        '{"lang":"en"}',
        "{}",
        "{",
        "[]",
        "3",
        '{"a":{"in":[]}}',
        '{"not":' * 40 + "{}" + "}" * 40,
        '{"a":1e999}',
        '{"a":NaN}',
    )
)
_HISTORIES: Final = st.sampled_from(
    ("[]", "{}", '[{"role":"user","content":"hello"}]', '[{"role":"system","content":""}]', "[" * 3000, '[{"role":1}]')
)
_INTEGERS: Final = st.one_of(st.integers(-3, 110), st.sampled_from((-(2**31), 2**31 - 1, 4096, 4097)))
_FLOATS: Final = st.one_of(
    st.floats(width=32), st.sampled_from((0.0, -0.0, 1e-45, 3.4e38, float("nan"), float("inf"), float("-inf")))
)


_TOLD: Final = 1_000  # characters of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What is sent: messages over a stream or one by itself, or bytes in the place of a message. `timeout_s` is its deadline."""

    messages: tuple[Any, ...] = ()
    streamed: bool = False
    raw: bytes | None = None

    def __repr__(self) -> str:
        """Short: megabytes would be told else."""
        what = "bytes" if self.raw is not None else "stream" if self.streamed else "request"
        texts = [repr(self.raw)] if self.raw is not None else [" ".join(str(one).split()) for one in self.messages]
        return f"<{what} {' | '.join(text if len(text) <= _TOLD else text[:_TOLD] + '...' for text in texts)}>"


def requests() -> st.SearchStrategy[Sent]:
    """Everything, but for several messages on one stream, of which our clients send one.

    Two whose responses come at the same moment killed Triton (abort: "ASSERTION FAILED: !byte_buffer->Valid()") or left the stream
    without an end: two that it refuses itself once in 60 streams, a good one of `retrieve`
    and a refused one of `generator` once in 5.
    """
    alone = st.builds(lambda message: Sent(messages=(message,)), bent())
    stream = st.builds(lambda message: Sent(messages=(message,), streamed=True), bent())
    return st.one_of(alone, stream, stream, _bytes())


@st.composite
def good(draw: Draw) -> Any:
    """A request that its model takes, but for its values."""
    model = draw(st.sampled_from(MODELS))
    inputs = draw(_INPUTS[model])
    return request(model, {name: value for name, value in inputs.items() if value is not None})


def _maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


def _question() -> st.SearchStrategy[str]:
    return st.one_of(st.just(QUESTION), _ODD_TEXTS)


_SEARCH: Final = {
    "num_passages": _maybe(_INTEGERS),
    "tenant": _maybe(_ODD_TEXTS),
    "filter": _maybe(st.one_of(_FILTERS, _ODD_TEXTS)),
    "mode": _maybe(st.one_of(st.sampled_from(("dense", "lexical", "hybrid", "")), _ODD_TEXTS)),
}
_ANSWER: Final = {
    "stream": _maybe(st.booleans()),
    "max_tokens": _maybe(_INTEGERS),
    "temperature": _maybe(_FLOATS),
    "top_p": _maybe(_FLOATS),
    "seed": _maybe(st.integers(0, 2**64 - 1).map(lambda seed: np.array([seed], np.uint64))),
    "stop_words": _maybe(st.lists(_ODD_TEXTS, max_size=5).map(lambda words: _column(words, (len(words),)))),
    "stop": st.sampled_from((None, None, None, False, True)),
    "lora_name": _maybe(_ODD_TEXTS),
    "history": _maybe(st.one_of(_HISTORIES, _ODD_TEXTS)),
    "strict": _maybe(st.booleans()),
}
_PASSAGES: Final = st.sampled_from(
    (
        b'{"text":"JSON is parsed by json.loads [1].","title":"","uri":"u","start":0,"end":1,"metadata":{}}',
        b'{"text":7,"title":[],"uri":null,"start":"x","end":1,"metadata":[]}',
        b' {"text":"t","title":"","uri":"u","start":0,"end":1}',
        b'{"text":"\\ud800","title":"","uri":"u","start":0,"end":1}',
        b"{}", b"[]", b"", b"null", b"\xff\xfe", b"[" * 3000,
    )
)  # fmt: skip


@st.composite
def _brought(draw: Draw) -> dict[str, Any]:
    """The retriever's outputs as a caller may bring them along to `generator`."""
    count = draw(st.integers(0, 4))
    passages = draw(st.lists(_PASSAGES, min_size=count, max_size=count))
    return {
        "passage_ids": np.array(draw(st.lists(st.integers(-2, 2**62), min_size=count, max_size=count)), np.int64),
        "scores": np.array(draw(st.lists(_FLOATS, min_size=count, max_size=count)), np.float32),
        "passages": _column(passages, (count,)),
        "index_version": draw(_maybe(st.integers(-(2**63), 2**63 - 1).map(lambda one: np.array([one], np.int64)))),
        "retrieval_degraded": draw(_maybe(_ODD_TEXTS)),
    }


@st.composite
def _vectors(draw: Draw) -> Any:
    """FP32 [1, n]: a unit vector, or one spoiled in a place, or of another length."""
    size = draw(st.sampled_from((384, 384, 384, 0, 1, 383, 385, 4096)))
    vector = np.full((1, size), size**-0.5 if size else 0.0, np.float32)
    if size and draw(st.booleans()):
        vector[0, draw(st.integers(0, size - 1))] = draw(_FLOATS)
    return vector


def _column(texts: list[Any], shape: tuple[int, ...]) -> Any:
    array = np.empty(shape, object)
    array.ravel()[:] = [text.encode() if isinstance(text, str) else text for text in texts]
    return array


_INPUTS: Final[dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "embedder": st.fixed_dictionaries(
        {"text_input": _maybe(_question()), "input_type": _maybe(st.one_of(st.just("passage"), _ODD_TEXTS))}
    ),
    "retriever": st.fixed_dictionaries({"embedding": _maybe(_vectors()), "text_input": _maybe(_question()), **_SEARCH}),
    "retrieve": st.fixed_dictionaries({"text_input": _maybe(_question()), **_SEARCH}),
    "rag": st.fixed_dictionaries({"text_input": _maybe(_question()), **_SEARCH, **_ANSWER}),
    "generator": st.one_of(
        st.fixed_dictionaries({"text_input": _maybe(_question()), **_SEARCH, **_ANSWER}),
        st.builds(
            lambda asked, brought: {**asked, **brought},
            st.fixed_dictionaries({"text_input": _maybe(_question()), **_ANSWER}),
            _brought(),
        ),
    ),
}


@st.composite
def bent(draw: Draw) -> Any:
    """A good request, bent up to four times."""
    message = draw(good())
    for bend in draw(st.lists(st.sampled_from(_BENDS), max_size=4)):
        bend(message, draw)
    return message


def _bend_type(message: Any, draw: Draw) -> None:
    if message.inputs:
        draw(st.sampled_from(message.inputs)).datatype = draw(st.sampled_from(_DATATYPES))


def _bend_shape(message: Any, draw: Draw) -> None:
    if message.inputs:
        shape = draw(st.sampled_from(message.inputs)).shape
        how = draw(st.sampled_from(("dim", "longer", "shorter", "other", "none")))
        if how == "dim" and shape:
            shape[draw(st.integers(0, len(shape) - 1))] = draw(st.sampled_from(_DIMS))
        elif how == "longer":
            shape.append(draw(st.sampled_from(_DIMS)))
        elif how == "shorter" and shape:
            del shape[-1]
        else:
            others = [] if how == "none" else draw(st.lists(st.sampled_from(_DIMS), max_size=6))
            del shape[:]
            shape.extend(others)


def _bend_inputs(message: Any, draw: Draw) -> None:
    """One is missing, there twice, unknown, or in another's place."""
    how = draw(st.sampled_from(("missing", "twice", "unknown", "renamed", "contents missing")))
    if how == "unknown":
        message.inputs.add(
            name=draw(st.sampled_from(("", "colour", "embedding", "\u2603"))), datatype="INT32", shape=[1]
        )
        message.raw_input_contents.append(b"\1\0\0\0")
    elif message.inputs:
        place = draw(st.integers(0, len(message.inputs) - 1))
        if how == "missing":
            del message.inputs[place]
            if draw(st.booleans()) and place < len(message.raw_input_contents):
                del message.raw_input_contents[place]
        elif how == "twice":
            message.inputs.add().CopyFrom(message.inputs[place])
            if place < len(message.raw_input_contents):
                message.raw_input_contents.append(message.raw_input_contents[place])
        elif how == "renamed":
            message.inputs[place].name = draw(st.sampled_from((*_TEXTS, "num_passages", "scores", "stop", "")))
        elif message.raw_input_contents:
            del message.raw_input_contents[-1]


def _bend_raw(message: Any, draw: Draw) -> None:
    """Bytes that do not fit the shape; lengths before strings that lie."""
    how = draw(st.sampled_from(("shorter", "longer", "empty", "random", "length", "one more", "all gone")))
    contents = message.raw_input_contents
    if how == "one more":
        contents.append(draw(st.binary(max_size=16)))
    elif how == "all gone":
        del contents[:]
    elif contents:
        place = draw(st.integers(0, len(contents) - 1))
        was = contents[place]
        if how == "length":
            lie = draw(st.sampled_from((0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, max(0, len(was) - 3))))
            contents[place] = struct.pack("<I", lie) + was[4:]
        else:
            cut = draw(st.integers(0, len(was)))
            bent_bytes = {"shorter": was[:cut], "longer": was + draw(st.binary(min_size=1, max_size=9)), "empty": b""}
            contents[place] = bent_bytes.get(how) or draw(st.binary(max_size=64))


def _bend_typed(message: Any, draw: Draw) -> None:
    """Contents in their typed field, beside or instead of the raw ones."""
    if not message.inputs:
        return
    contents = draw(st.sampled_from(message.inputs)).contents
    match draw(st.sampled_from(("bytes", "ints", "floats", "bools"))):
        case "bytes":
            contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
        case "ints":
            contents.int_contents.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
        case "floats":
            contents.fp32_contents.extend(draw(st.lists(_FLOATS, max_size=3)))
        case _:
            contents.bool_contents.extend(draw(st.lists(st.booleans(), max_size=3)))
    if draw(st.booleans()):
        del message.raw_input_contents[:]


def _bend_parameters(message: Any, draw: Draw) -> None:
    """Parameters of every type, of the request, of an input or of an output."""
    bearers = [message, *message.inputs, *message.outputs]
    parameter = draw(st.sampled_from(bearers)).parameters[draw(st.sampled_from(_PARAMETERS))]
    match draw(st.sampled_from(("bool", "int", "text", "double", "uint", "nothing"))):
        case "bool":
            parameter.bool_param = draw(st.booleans())
        case "int":
            parameter.int64_param = draw(st.sampled_from((-(2**63), -1, 0, 1, 1000, 10**6, 2**63 - 1)))
        case "text":
            parameter.string_param = draw(st.text(_CHARACTERS, max_size=20))
        case "double":
            parameter.double_param = draw(st.floats())
        case "uint":
            parameter.uint64_param = draw(st.sampled_from((0, 1, 2**64 - 1)))
        case _:
            pass


def _bend_outputs(message: Any, draw: Draw) -> None:
    names = ("passage_ids", "scores", "text_output", "sources", "embedding", "degraded", "colour", "", "text_input")
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4)):
        message.outputs.add(name=name)


def _bend_address(message: Any, draw: Draw) -> None:
    """The request's id, the model's name or its version."""
    match draw(st.sampled_from(("id", "id", "name", "version"))):
        case "id":
            message.id = draw(st.one_of(_ODD_TEXTS, st.sampled_from(("-1", "same", "0", str(2**64)))))
        case "name":
            message.model_name = draw(
                st.one_of(st.sampled_from((*MODELS, "", "oracle", "rag ")), st.text(_CHARACTERS, max_size=9))
            )
        case _:
            message.model_version = draw(st.sampled_from(("", "1", "2", "0", "-1", "one", "1 ", str(2**64))))


_BENDS: Final = (
    _bend_type, _bend_shape, _bend_inputs, _bend_raw, _bend_typed, _bend_parameters, _bend_outputs, _bend_address,
)  # fmt: skip


@st.composite
def _bytes(draw: Draw) -> Sent:
    """A message's bytes with some of them gone, changed or put in; seldom a message, then."""
    data = bytearray(draw(good()).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "change", "insert"))):
            case "cut":
                del data[place:]
            case "change" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case _:
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
    return Sent(raw=bytes(data))


def method(name: str) -> str:
    """The full name of a call of Triton's, for those who send bytes."""
    return f"/{service_pb2.DESCRIPTOR.package}.GRPCInferenceService/{name}"
