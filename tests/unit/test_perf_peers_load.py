"""The load on peers and on our server: closed, over connections that stay, the same requests for all."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest
from perf_peers_toys import ANSWER, toy_server
from tritonclient.grpc import service_pb2

from tritonrag_client.errors import InternalError
from tritonrag_perf.peers.load_process import Job, connected, run
from tritonrag_perf.peers.running import drive
from tritonrag_perf.peers.wire import GRPC_METHOD, PROTOCOLS, Found, Protocol, parse, request

QUESTIONS = ("one?", "zwei ä?", "三?", "four")
FOUND = Found(ids=(7, 8), scores=(0.9, 0.8), texts=("seven", "eight"))


def job(address: str, protocol: Protocol = "peer", clients: int = 3) -> Job:
    return Job(
        protocol=protocol,
        address=address,
        questions=QUESTIONS,
        k=2,
        clients=clients,
        warm_up_s=0.2,
        seconds=0.3,
        pids=(os.getpid(),),
    )


def packed(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def grpc_answer() -> bytes:
    answer = service_pb2.ModelInferResponse(model_name="retrieve")
    # In another order than asked for, as an ensemble may give them.
    for name in ("passages", "passage_ids", "scores"):
        answer.outputs.add(name=name)
    passages = packed(*(json.dumps(one).encode() for one in ANSWER["passages"]))  # type: ignore[attr-defined]
    answer.raw_output_contents.extend(
        [passages, np.array([7, 8], np.int64).tobytes(), np.array([0.9, 0.8], np.float32).tobytes()]
    )
    return bytes(answer.SerializeToString())


def http_answer() -> bytes:
    data = {"passage_ids": [7, 8], "scores": [0.9, 0.8], "passages": ['{"text": "seven"}', '{"text": "eight"}']}
    return json.dumps({"outputs": [{"name": name, "data": one} for name, one in data.items()]}).encode()


@asynccontextmanager
async def toy_grpc(seen: list[service_pb2.ModelInferRequest], *, fails: bool = False) -> AsyncIterator[str]:
    async def infer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.append(service_pb2.ModelInferRequest.FromString(message))
        if fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
        return grpc_answer()

    service, _, method = GRPC_METHOD.strip("/").partition("/")
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_so_many_clients_ask_over_connections_that_stay_each_one_question_at_a_time() -> None:
    with toy_server() as toy:
        window = asyncio.run(run(job(toy.address, clients=3)))
    assert set(toy.questions) == set(QUESTIONS)
    assert len(toy.connections) == 3
    assert toy.most_together <= 3
    assert 0 < len(window.latencies_ms) < len(toy.questions)
    assert window.seconds >= 0.3
    assert window.client_cpu_s > 0
    assert window.server_cpu_s > 0
    assert all(latency > 0 for latency in window.latencies_ms)


def test_the_load_runs_in_a_process_of_its_own_and_its_failure_is_told() -> None:
    with toy_server() as toy:
        assert drive(job(toy.address)).latencies_ms
    with toy_server(lambda _: "overloaded", status=503) as toy, pytest.raises(InternalError, match="503"):
        drive(job(toy.address))


async def test_our_server_is_asked_by_grpc_with_the_same_loop() -> None:
    seen: list[service_pb2.ModelInferRequest] = []
    async with toy_grpc(seen) as address:
        window = await run(job(address, "triton_grpc"))
        async with connected("triton_grpc", address, clients=1) as ask:
            assert parse("triton_grpc", await ask(request("triton_grpc", "q", 2))).ids == (7, 8)
    assert window.latencies_ms
    assert {message.raw_input_contents[0][4:].decode() for message in seen} == {*QUESTIONS, "q"}


async def test_an_error_of_our_server_ends_the_load() -> None:
    async with toy_grpc([], fails=True) as address, connected("triton_grpc", address, clients=1) as ask:
        with pytest.raises(InternalError, match="not today"):
            await ask(request("triton_grpc", "q", 2))


@pytest.mark.parametrize(
    ("protocol", "body"),
    [("peer", json.dumps(ANSWER).encode()), ("triton_http", http_answer()), ("triton_grpc", grpc_answer())],
)
def test_every_protocol_says_the_same(protocol: Protocol, body: bytes) -> None:
    found = parse(protocol, body)
    assert (found.ids, found.texts) == (FOUND.ids, FOUND.texts)
    assert found.scores == pytest.approx(FOUND.scores)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_no_answer_is_refused(protocol: Protocol) -> None:
    with pytest.raises(InternalError, match="no answer"):
        parse(protocol, b'{"ids": [1], "scores": [], "passages": [], "outputs": []}')


def test_our_server_is_asked_for_dense_search_and_as_many_passages() -> None:
    asked = json.loads(request("triton_http", "zwei ä?", 3))
    values = {one["name"]: one["data"] for one in asked["inputs"]}
    assert values == {"text_input": ["zwei ä?"], "num_passages": [3], "mode": ["dense"]}
    assert [one["name"] for one in asked["outputs"]] == ["passage_ids", "scores", "passages"]
    message = service_pb2.ModelInferRequest.FromString(request("triton_grpc", "zwei ä?", 3))
    expected = [packed("zwei ä?".encode()), np.int32(3).tobytes(), packed(b"dense")]
    assert [one.name for one in message.inputs] == ["text_input", "num_passages", "mode"]
    assert list(message.raw_input_contents) == expected
