"""A full model refuses at once what finds no room, and answers all that it took."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.server.wire import Wire, request
from tests.waiting import wait_until
from tritonrag.launcher import TritonServer
from tritonrag.triton_command import ServeOptions
from tritonrag_client._status import from_call
from tritonrag_client.errors import DeadlineError, OverloadedError, RagError

BATCH, WAITING = 4, 8

CONFIG = """
backend: "python"
max_batch_size: 4
input [
  { name: "number" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "other" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
]
output [ { name: "doubled" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: INSTANCES } ]
dynamic_batching { max_queue_delay_microseconds: 0 }
"""

# Doubles numbers as soon as the file `go` is there, and writes down what it is given together. 1000 takes a while of its own.
MODEL = """
import os
import time

import triton_python_backend_utils as pb_utils
from tritonrag_backends.models.door import Door
from tritonrag_backends.models.edge import serve_batch
from tritonrag_backends.settings import LimitSettings

FOLDER = os.path.dirname(__file__)


class TritonPythonModel:
    def initialize(self, args):
        self.door = Door("double", LimitSettings(waiting=WAITING, wait_s=60), args, self.answer)

    def execute(self, requests):
        return self.door.serve(requests)

    def finalize(self):
        self.door.close()

    def answer(self, requests):
        return serve_batch(requests, "double", self.read, self.work)

    def read(self, request):
        return pb_utils.get_input_tensor_by_name(request, "number").as_numpy()

    def work(self, numbers):
        with open(os.path.join(FOLDER, "batches"), "a") as batches:
            batches.write(f"{os.getpid()} {sum(map(len, numbers))}\\n")
        if any(1000 in rows for rows in numbers):
            time.sleep(0.5)
        while not os.path.exists(os.path.join(FOLDER, "go")):
            time.sleep(0.005)
        time.sleep(PAUSE_S)
        return [[pb_utils.Tensor("doubled", 2 * rows)] for rows in numbers]
"""


class Model:
    """The model, asked over gRPC."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self._folder, self._wire = folder / "double" / "1", wire

    def ask(self, *numbers: int, timeout_us: int = 0, other: bool = False) -> grpc.Future:
        rows = np.array(numbers, np.int32).reshape(-1, 1)
        message = request("double", {"number": rows, "other": rows} if other else {"number": rows})
        if timeout_us:
            message.parameters["timeout"].int64_param = timeout_us
        return self._wire.stub.ModelInfer.future(message, timeout=60)

    def fill(self) -> grpc.Future:
        """Keep it busy with a full batch until `go`."""
        asked = self.ask(*range(BATCH))
        assert wait_until(lambda: self.batches == [BATCH])
        return asked

    def ask_one_by_one(self, *numbers: int, **options: Any) -> list[grpc.Future]:
        """They arrive in this order: Triton counts a request once the model has it."""
        asked = []
        for number in numbers:
            before = self._arrived()
            asked.append(self.ask(number, **options))
            assert wait_until(lambda before=before: self._arrived() > before)
        return asked

    def _arrived(self) -> float:
        return self._wire.metric("nv_inference_request_success", model="double")

    def go(self) -> None:
        (self._folder / "go").touch()

    @property
    def batches(self) -> list[int]:
        """Rows of each batch so far."""
        return [rows for _, rows in self.worked]

    @property
    def worked(self) -> list[tuple[int, int]]:
        """The process and the rows of each batch so far."""
        file = self._folder / "batches"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(pid), int(rows)) for pid, rows in (line.split() for line in lines)]


@pytest.fixture
def server() -> Iterator[TritonServer]:
    made = TritonServer()
    with made:
        yield made
    assert made.check_left_behind() == []


@contextmanager
def serving(
    server: TritonServer, folder: Path, *, instances: int = 1, waiting: int = WAITING, pause_s: float = 0.0
) -> Iterator[Model]:
    (folder / "double" / "1").mkdir(parents=True)
    (folder / "double" / "config.pbtxt").write_text(CONFIG.replace("INSTANCES", str(instances)))
    (folder / "double" / "1" / "model.py").write_text(
        MODEL.replace("WAITING", str(waiting)).replace("PAUSE_S", str(pause_s))
    )
    wire = Wire(server.start(ServeOptions(model_repository=folder, models=("double",))))
    made = Model(folder, wire)
    yield made
    made.go()
    wire.close()


@pytest.fixture
def model(tmp_path: Path, server: TritonServer) -> Iterator[Model]:
    with serving(server, tmp_path) as made:
        yield made


def answer_of(asked: grpc.Future) -> list[int]:
    return np.frombuffer(asked.result(60).raw_output_contents[0], np.int32).tolist()


def end(*asked: grpc.Future) -> None:
    """Wait for them."""
    for one in asked:
        one.exception(60)


def errors_of(asked: list[grpc.Future]) -> list[RagError]:
    return [from_call(one.exception(60)) for one in asked]


def test_a_model_that_is_not_full_answers_in_its_turn(model: Model) -> None:
    model.go()
    assert [answer_of(model.ask(number)) for number in range(3)] == [[0], [2], [4]]


def test_what_finds_no_room_is_refused_while_the_others_wait(model: Model) -> None:
    filling = model.fill()
    asked = [model.ask(number) for number in range(WAITING + 10)]
    assert wait_until(lambda: sum(one.done() for one in asked) == 10)
    refused = errors_of([one for one in asked if one.done()])
    assert {type(error) for error in refused} == {OverloadedError}
    assert all("TRITONRAG_LIMITS_WAITING" in error.message for error in refused)
    waiting = {number: one for number, one in enumerate(asked) if not one.done()}
    model.go()
    assert {number: answer_of(one) for number, one in waiting.items()} == {number: [2 * number] for number in waiting}
    assert answer_of(filling) == [0, 2, 4, 6]


def test_once_nothing_waits_it_is_as_before(model: Model) -> None:
    filling = model.fill()
    asked = [model.ask(number) for number in range(WAITING)]
    model.go()
    end(filling, *asked)
    assert [answer_of(model.ask(number)) for number in range(3)] == [[0], [2], [4]]


def test_those_that_wait_share_a_batch_whatever_their_inputs(model: Model) -> None:
    filling = model.fill()
    asked = [*model.ask_one_by_one(0, 1, other=True), *model.ask_one_by_one(2, 3), *model.ask_one_by_one(4, other=True)]
    model.go()
    end(filling, *asked)
    assert model.batches == [BATCH, BATCH, 1]


def test_one_whose_time_is_over_before_its_turn_is_not_worked_on(model: Model) -> None:
    filling = model.fill()
    late, asked = model.ask_one_by_one(0, 1, timeout_us=1_000), model.ask_one_by_one(2, 3)
    model.go()
    assert {type(error) for error in errors_of(late)} == {DeadlineError}
    assert [answer_of(one) for one in (filling, *asked)] == [[0, 2, 4, 6], [4], [6]]
    assert model.batches == [BATCH, 2]


def test_one_that_was_cancelled_while_it_waited_is_not_worked_on(model: Model) -> None:
    filling = model.fill()
    cancelled, *asked = model.ask_one_by_one(1, 2, 3)
    cancelled.cancel()
    model.go()
    end(filling, *asked)
    assert model.batches == [BATCH, 2]


def test_what_waits_is_answered_before_the_server_ends(model: Model, server: TritonServer) -> None:
    filling, asked = model.fill(), model.ask_one_by_one(*range(WAITING))
    with ThreadPoolExecutor(1) as stopping:
        stopped = stopping.submit(server.stop)
        model.go()
        assert answer_of(filling) == [0, 2, 4, 6]
        assert [answer_of(one) for one in asked] == [[2 * number] for number in range(WAITING)]
        stopped.result(60)


def test_requests_of_several_rows_wait_at_the_door_too(model: Model) -> None:
    """Triton can't make a full batch of them."""
    asked = [model.ask(number, number, number) for number in range(6)]
    assert wait_until(lambda: sum(one.done() for one in asked) == 3)  # one in work; 8 rows of room are two
    model.go()
    answers = [answer_of(one) for one in asked if one.exception(60) is None]
    assert len(answers) == 3
    assert all(len(answer) == 3 for answer in answers)


def test_a_queue_that_triton_can_not_put_into_batches_waits_at_the_door_too(
    tmp_path: Path, server: TritonServer
) -> None:
    """It ends a batch where the inputs change, and so has no full one."""
    with serving(server, tmp_path, pause_s=0.02) as model:
        model.go()
        asked = []
        for number in range(60):
            asked.append(model.ask(number, other=number % 2 == 1))
            time.sleep(0.002)  # so that they arrive in this order, but for a few
        answers = {number: answer_of(one) for number, one in enumerate(asked) if one.exception(60) is None}
        assert answers == {number: [2 * number] for number in answers}
        assert BATCH in model.batches


def test_an_instance_does_not_take_all_that_waits_while_another_is_busy_for_a_moment(
    tmp_path: Path, server: TritonServer
) -> None:
    with serving(server, tmp_path, instances=2, waiting=256, pause_s=0.02) as model:
        model.go()
        slow = model.ask(1000)
        assert wait_until(lambda: model.batches == [1])
        asked = [model.ask(*range(BATCH)) for _ in range(60)]
        end(slow, *asked)
        assert all(answer_of(one) == [0, 2, 4, 6] for one in asked)
        busy, _ = model.worked[0]
        assert sum(pid == busy for pid, _ in model.worked) > 1
