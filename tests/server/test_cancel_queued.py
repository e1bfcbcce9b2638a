"""A request that is cancelled while it waits in a queue is not worked on.

Triton 2.51 passes over those that were cancelled before it formed a batch. It forms the next one while all instances are busy:
what is cancelled after that is up to the edge of a model.
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.server import toy
from tests.server.wire import Wire, request
from tests.waiting import wait_until
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions

QUEUE = """
backend: "python"
max_batch_size: 4
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "slept" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { max_queue_delay_microseconds: 0 }
"""

AT_OUR_EDGE = """
    def execute(self, requests):
        from tritonrag_backends.models.edge import serve_batch

        return serve_batch(requests, "wait", lambda request: request, lambda all: [[self.sleep(one)] for one in all])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = toy.make_repository(tmp_path / "repository")
    (folder / "wait" / "config.pbtxt").write_text(QUEUE)
    (folder / "wait" / "1" / "model.py").write_text(toy.WAIT.replace("seconds[0]", "seconds.ravel()[0]") + AT_OUR_EDGE)
    return folder


@pytest.fixture
def wire(repository: Path) -> Iterator[Wire]:
    server = TritonServer()
    with server:
        connection = Wire(server.start(ServeOptions(model_repository=repository, models=("wait",))))
        yield connection
        connection.close()
    assert server.check_left_behind() == []


def test_it_is_not_begun_and_those_beside_it_are(wire: Wire, repository: Path) -> None:
    def ask(seconds: float) -> grpc.Future:
        return wire.stub.ModelInfer.future(request("wait", {"seconds": np.array([[seconds]], np.float32)}), timeout=30)

    def waiting() -> float:
        return wire.metric("nv_inference_pending_request_count", model="wait")

    first = ask(2.0)
    assert wait_until(lambda: toy.begun(repository) == 1)
    cancelled, other = ask(0.0), ask(0.0)
    assert wait_until(lambda: waiting() == 2)
    cancelled.cancel()
    assert other.result().outputs
    assert first.result().outputs
    assert toy.begun(repository) == 2
