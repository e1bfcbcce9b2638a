"""The question as each server wants it, and the answer as each gives it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from tritonrag_client.contract import MODE, NUM_PASSAGES, PASSAGE_IDS, PASSAGES, RETRIEVE, SCORES, TEXT_INPUT
from tritonrag_client.errors import InternalError

Protocol = Literal["peer", "triton_http", "triton_grpc"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
HTTP_PATHS: Final[Mapping[Protocol, str]] = {"peer": "/retrieve", "triton_http": f"/v2/models/{RETRIEVE}/infer"}
GRPC_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_OUTPUTS: Final = (PASSAGE_IDS, SCORES, PASSAGES)
# Our demonstration index searches words too where a request does not say; the peers have vectors alone.
_MODE: Final = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer: passages' ids and scores, best first, and their texts."""

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    texts: tuple[str, ...]


def request(protocol: Protocol, question: str, k: int) -> bytes:
    """The body of a request, or the message."""
    return _REQUESTS[protocol](question, k)


def parse(protocol: Protocol, body: bytes) -> Found:
    """The answer. Raises InternalError where it is none."""
    try:
        return _PARSERS[protocol](body)
    except (KeyError, ValueError, TypeError, DecodeError) as error:
        raise InternalError(f"{body[:200]!r} is no answer of a server of kind {protocol}") from error


def _peer_request(question: str, k: int) -> bytes:
    return json.dumps({"question": question, "k": k}, ensure_ascii=False).encode()


def _triton_http_request(question: str, k: int) -> bytes:
    inputs = [
        {"name": TEXT_INPUT, "shape": [1, 1], "datatype": "BYTES", "data": [question]},
        {"name": NUM_PASSAGES, "shape": [1, 1], "datatype": "INT32", "data": [k]},
        {"name": MODE, "shape": [1, 1], "datatype": "BYTES", "data": [_MODE]},
    ]
    outputs = [{"name": name} for name in _OUTPUTS]
    return json.dumps({"inputs": inputs, "outputs": outputs}, ensure_ascii=False).encode()


def _triton_grpc_request(question: str, k: int) -> bytes:
    message = service_pb2.ModelInferRequest(model_name=RETRIEVE)
    tensors = (
        (TEXT_INPUT, "BYTES", _packed(question)),
        (NUM_PASSAGES, "INT32", np.int32(k).tobytes()),
        (MODE, "BYTES", _packed(_MODE)),
    )
    for name, datatype, content in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        message.raw_input_contents.append(content)
    for name in _OUTPUTS:
        message.outputs.add(name=name)
    serialized: bytes = message.SerializeToString()
    return serialized


def _packed(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "little") + data


def _peer_answer(body: bytes) -> Found:
    answer = json.loads(body)
    return _found(answer["ids"], answer["scores"], answer["passages"])


def _triton_http_answer(body: bytes) -> Found:
    outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    return _found(outputs[PASSAGE_IDS], outputs[SCORES], map(json.loads, outputs[PASSAGES]))


def _triton_grpc_answer(body: bytes) -> Found:
    message = service_pb2.ModelInferResponse.FromString(body)
    raw = {o.name: data for o, data in zip(message.outputs, message.raw_output_contents, strict=True)}
    passages, at = [], 0
    while at < len(raw[PASSAGES]):
        length = int.from_bytes(raw[PASSAGES][at : at + 4], "little")
        passages.append(json.loads(raw[PASSAGES][at + 4 : at + 4 + length]))
        at += 4 + length
    ids, scores = np.frombuffer(raw[PASSAGE_IDS], np.int64), np.frombuffer(raw[SCORES], np.float32)
    return _found(ids.tolist(), scores.tolist(), passages)


def _found(ids: Sequence[int], scores: Sequence[float], passages: Any) -> Found:  # noqa: ANN401 - any iterable of JSON
    texts = tuple(passage["text"] for passage in passages)
    if not len(ids) == len(scores) == len(texts):
        raise ValueError(f"{len(ids)} ids, {len(scores)} scores and {len(texts)} passages")
    return Found(ids=tuple(map(int, ids)), scores=tuple(map(float, scores)), texts=texts)


_REQUESTS: Final[Mapping[Protocol, Callable[[str, int], bytes]]] = {
    "peer": _peer_request,
    "triton_http": _triton_http_request,
    "triton_grpc": _triton_grpc_request,
}
_PARSERS: Final[Mapping[Protocol, Callable[[bytes], Found]]] = {
    "peer": _peer_answer,
    "triton_http": _triton_http_answer,
    "triton_grpc": _triton_grpc_answer,
}
