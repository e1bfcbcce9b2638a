"""A real gRPC server on loopback that speaks Triton's service by a script, and both clients behind one way of calling them."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tritonrag_client import AsyncRagClient, RagClient, RetryPolicy, Timeouts
from tritonrag_client._codec import decode_outputs
from tritonrag_client._core import Chance
from tritonrag_client.contract import Passage, Source, encode_sources

# gRPC and protobuf ship no types, and tables of tests hold anything.
Message: TypeAlias = Any
Context: TypeAlias = Any
Value: TypeAlias = Any
Entry: TypeAlias = Callable[[Message, Context], Value]

SOURCE = Source(n=1, passage_id=7, score=0.5, passage=Passage(text="x", title="t", uri="u", start=0, end=1))


class ScriptedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers ModelInfer and ModelStreamInfer by the next entry of `script`, the last one again and again.

    An entry is called with the request and the context. `requests` are those that came, `lives` counts ServerLive, `ready` is what
    ServerReady says, and `ends` tells of each answer of `slow_answer` whether it was "read out" or "cut off".
    """

    def __init__(self) -> None:
        self.script: list[Entry] = []
        self.requests: list[Any] = []
        self.contexts: list[Any] = []
        self.lives = 0
        self.ready = True
        self.ready_models = {"embedder", "retriever", "generator", "retrieve", "rag"}
        self.vanished = threading.Event()
        self.ends: queue.Queue[str] = queue.Queue()

    def ServerLive(self, request, context):  # noqa: ANN001, ANN201, ARG002, N802 - the service's own signature
        self.lives += 1
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):  # noqa: ANN001, ANN201, ARG002, N802 - the service's own signature
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request, context):  # noqa: ANN001, ANN201, N802 - the service's own signature
        if request.name == "rag" and "rag" not in self.ready_models:
            context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'rag' is not found")
        return service_pb2.ModelReadyResponse(ready=request.name in self.ready_models)

    def ModelInfer(self, request, context):  # noqa: ANN001, ANN201, N802 - the service's own signature
        return self._next(request, context)

    def ModelStreamInfer(self, request_iterator, context):  # noqa: ANN001, ANN201, N802 - the service's own signature
        for request in request_iterator:
            yield from self._next(request, context)

    def hang(self, request: Message, context: Context) -> Value:  # noqa: ARG002 - an entry of the script
        """Wait until the client is gone."""
        self.watch(context)
        self.vanished.wait(20)
        return iter(())

    def watch(self, context: Context) -> None:
        """Note the end of this call; before its first response, for gRPC does not go on with a call that has ended."""
        if not context.add_callback(self.vanished.set):
            self.vanished.set()

    def inputs(self, number: int = -1) -> dict[str, Any]:
        """The inputs of a request that came, as {name: (shape, values)}."""
        request = self.requests[number]
        response = service_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
        for tensor in request.inputs:
            response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return {name: (list(array.shape), array.ravel().tolist()) for name, array in decode_outputs(response).items()}

    def _next(self, request: Message, context: Context) -> Value:
        self.requests.append(request)
        entry = self.script[min(len(self.requests), len(self.script)) - 1]
        return entry(request, context)


@contextmanager
def running(triton: ScriptedTriton, credentials: Value = None) -> Iterator[str]:
    """The address at which `triton` listens."""
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        triton.vanished.set()
        server.stop(None).wait()


class Talk:
    """Calls a method of one of the two clients; pauses are noted instead of slept."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.pauses_s: list[float] = []
        self.now_s = 1000.0

    def __call__(
        self, url: str, method: str, *args: Value, client: dict[str, Any] | None = None, **options: Value
    ) -> Value:
        """The result; for `stream` the list of its deltas."""
        if self.flavour == "threads":
            return self._with_threads(url, method, args, client or {}, options)
        return asyncio.run(self._with_asyncio(url, method, args, client or {}, options))

    def chance(self, draw: float = 0.5) -> Chance:
        """A clock that only pauses move, and a known luck."""
        return Chance(clock=lambda: self.now_s, draw=lambda: draw)

    def _with_threads(self, url: str, method: str, args: Value, settings: Value, options: Value) -> Value:
        with RagClient(url, _sleep=self._pause, **settings) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if method == "stream" else result

    async def _with_asyncio(self, url: str, method: str, args: Value, settings: Value, options: Value) -> Value:
        async def sleep(pause_s: float) -> None:
            self._pause(pause_s)

        async with AsyncRagClient(url, _sleep=sleep, **settings) as client:
            result = getattr(client, method)(*args, **options)
            return [delta async for delta in result] if method == "stream" else await result

    def _pause(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s


def fails(code: grpc.StatusCode, details: str) -> Entry:
    """An entry that ends the call with a status."""
    return lambda _, context: context.abort(code, details)


def says(*messages: Message) -> Entry:
    """An entry that streams these."""
    return lambda _request, _context: iter(messages)


def tensors(outputs: dict[str, Any]) -> Value:
    """A ModelInferResponse of these arrays."""
    response = service_pb2.ModelInferResponse()
    for name, value in outputs.items():
        array = np.asarray(value)
        if array.dtype == np.object_:
            data = b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
        else:
            data = array.tobytes()
        kinds = {"O": "BYTES", "f": "FP32", "i": "INT64"}
        response.outputs.add(name=name, datatype=kinds[array.dtype.kind], shape=array.shape)
        response.raw_output_contents.append(data)
    return response


def delta(
    text: str, *, sources: tuple[Source, ...] = (), finish: str = "", degraded: str = "", first: bool = False
) -> Value:
    """A generator's response in its stream."""
    strings = {
        "text_output": text.encode(),
        "sources": encode_sources(list(sources)) if first or sources else b"",
        "finish_reason": finish.encode(),
        "degraded": degraded.encode(),
    }
    infer = tensors({name: np.array([value], dtype=np.object_) for name, value in strings.items()})
    return service_pb2.ModelStreamInferResponse(infer_response=infer)


def final(message: Message | None = None) -> Value:
    """`message`, or one without outputs, as the last of its stream."""
    message = service_pb2.ModelStreamInferResponse() if message is None else message
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return message


def error(text: str) -> Value:
    """A failure in a stream, as Triton sends it."""
    return service_pb2.ModelStreamInferResponse(error_message=text)


ANSWER = says(delta("Hello ", sources=(SOURCE,)), delta("world [1]", finish="stop"), final())
BROKEN_OFF = says(
    delta("Hello ", sources=(SOURCE,)), delta("", finish="error", degraded="the engine went away"), final()
)


def found(questions: list[str], k: int = 2, degraded: str = "") -> Value:
    """A retriever's response: passage i of a question bears its text and i; the last place of each row is padding."""
    rows = len(questions)
    passages = [
        [Passage(text=f"{question} {i}", title="t", uri="u", start=0, end=1).to_json() for i in range(k)] + [b""]
        for question in questions
    ]
    return tensors(
        {
            "passage_ids": np.array([[*range(k), -1]] * rows, dtype=np.int64),
            "scores": np.array([[0.5] * k + [0.0]] * rows, dtype=np.float32),
            "passages": np.array(passages, dtype=np.object_),
            "index_version": np.full((rows, 1), 3, dtype=np.int64),
            "degraded": np.array([[degraded.encode()]] * rows, dtype=np.object_),
        }
    )


def embedding(request: Message, _context: Context) -> Value:
    """A vector [length of the text's tensor, row] for each row."""
    rows = request.inputs[0].shape[0]
    return tensors({"embedding": np.array([[rows, row] for row in range(rows)], dtype=np.float32)})


def search(request: Message, _context: Context) -> Value:
    rows = request.inputs[0].shape[0]
    return found([f"q{row}" for row in range(rows)])


def slow_answer(triton: ScriptedTriton, *, obeys: bool = True) -> Entry:
    """An answer that begins and then hangs, at a server that obeys `stop`, or one that only says that it did."""

    def entry(request: Message, context: Context) -> Iterator[Any]:
        if request.inputs[0].name == "stop":
            if obeys:
                triton.vanished.set()
            yield final(delta("", finish="cancelled", first=True))
            return
        triton.watch(context)
        yield delta("Hello ", sources=(SOURCE,))
        triton.vanished.wait(20)
        if context.is_active():
            yield final(delta("", finish="cancelled"))
        triton.ends.put("read out" if context.is_active() else "cut off")

    return entry


BUSY = fails(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
ONCE = {"retry": RetryPolicy(attempts=1)}
SHORT = Timeouts(connect_s=0.2, total_s=0.2)
