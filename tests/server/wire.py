"""Requests as they stand on the wire: what a client that is not ours, or a broken one, can send."""

import json
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tritonrag.launcher import RunningServer

TRITON_TYPES = {
    "bool": "BOOL",
    "int32": "INT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float32": "FP32",
    "object": "BYTES",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error. `status` is empty where it came inside a stream, which carries none."""

    status: str
    message: str


def request(model: str, inputs: dict[str, Any], *, request_id: str = "", batched: bool | None = None) -> Any:
    """A ModelInferRequest. Strings and numbers get shape [1], or [1, 1] where the model batches; arrays stay as they are."""
    batched = model in {"embedder", "retriever", "retrieve"} if batched is None else batched
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, value in inputs.items():
        array = _array(value, (1, 1) if batched else (1,))
        message.inputs.add(name=name, datatype=TRITON_TYPES[array.dtype.name], shape=array.shape)
        message.raw_input_contents.append(_raw(array))
    return message


def _array(value: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    dtype = {bool: np.bool_, int: np.int32, float: np.float32}.get(type(value), np.object_)
    return np.array([value.encode() if isinstance(value, str) else value], dtype).reshape(shape)


def _raw(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel())


def strings(raw: bytes) -> list[bytes]:
    """The elements of a raw STRING tensor."""
    elements, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        elements.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return elements


class Wire:
    """A raw gRPC and HTTP connection to one server."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(server.grpc_url, options=options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def unary(self, message: Any, timeout_s: float = 20) -> dict[str, bytes] | Failure:
        try:
            response = self.stub.ModelInfer(message, timeout=timeout_s)
        except grpc.RpcError as error:
            return Failure(error.code().name, error.details())
        return outputs(response)

    def stream(self, *messages: Any, timeout_s: float = 20) -> list[dict[str, bytes] | Failure]:
        return list(self.iterate(*messages, timeout_s=timeout_s))

    def iterate(self, *messages: Any, timeout_s: float = 20) -> Iterator[dict[str, bytes] | Failure]:
        call = self.stub.ModelStreamInfer(iter(messages), timeout=timeout_s)
        try:
            for response in call:
                yield (
                    Failure("", response.error_message) if response.error_message else outputs(response.infer_response)
                )
        except grpc.RpcError as error:
            yield Failure(error.code().name, error.details())
        finally:
            call.cancel()

    def ask(self, message: Any) -> dict[str, bytes] | Failure:
        """The last answer: unary where Triton allows it, over a stream where the model is decoupled."""
        if message.model_name in {"rag", "generator"}:
            return self.stream(message)[-1]
        return self.unary(message)

    def post(self, path: str, body: bytes | dict[str, Any]) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.server.http_url + path, data=data), timeout=20
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the metric's samples that bear these labels."""
        url = f"http://{self.server.host}:{self.server.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name in {name, f"{name}_total"}]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def outputs(response: Any) -> dict[str, bytes]:
    return {output.name: raw for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)}
