"""The door of a model that batches: what may wait is bounded, and what finds no room is told so at once.

Triton's own queue has no bound here: one would cost its wake-ups (docs/triton-notes.md). So the door stands in the model, and takes
over the queue when there is one to speak of:

    a batch that is not full   nothing else waits: it is answered as it came, nothing is gained or lost
    a full one                 more may wait in Triton: it waits here, in a `Backlog`, for a thread that answers it by response
                               senders, and Triton hands over what it has. From then on all requests come here as they arrive,
                               wait where there is room and are refused where there is none, until nothing waits any more.

In the second case requests that Triton would not put into one batch, for their inputs differ, share one. It ends a batch where the
inputs that are given change; so batches that follow each other at once, each of other inputs, are a queue as well.

Where a model has several instances, each takes from the same queue of Triton. One that has a batch in work and one that waits holds
its `execute` for a moment, so that the others get theirs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import triton_python_backend_utils as pb_utils

from tritonrag_backends.backlog import Backlog, Bounds, Offer
from tritonrag_backends.models.edge import error_response
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.metrics import DoorMetrics
from tritonrag_backends.models.sender import Sender
from tritonrag_backends.settings import LimitSettings
from tritonrag_client.errors import DeadlineError, OverloadedError, RagError

# What answers a batch: a response to each request, in their order.
Answer: TypeAlias = Callable[[list["pb_utils.InferenceRequest"]], list["pb_utils.InferenceResponse"]]

_HOLD_S: Final = 0.05  # at most: a request that is to be refused must not wait for long
_AT_ONCE_S: Final = 0.005  # between the end of `execute` and the next call
_CHANGES: Final = 4  # of inputs from call to call, without a pause


class Door:
    """Stands in one instance of `model`, whose `answer` never runs twice at a time."""

    def __init__(self, model: str, limits: LimitSettings, args: Mapping[str, str], answer: Answer) -> None:
        """`args` is what Triton hands to `initialize`."""
        self._model, self._limits, self._answer = model, limits, answer
        config = json.loads(args["model_config"])
        self._full_rows = int(config["max_batch_size"])
        self._has_siblings = _instances(config) > 1
        self._changes = _Changes()
        self._metrics = DoorMetrics(model, instance_name(args))
        self._bounds = bounds = Bounds(rows=limits.waiting, wait_s=limits.wait_s, batch_rows=self._full_rows)
        self._backlog: Backlog[pb_utils.InferenceRequest] = Backlog(bounds, self._answer_waiting, self._refuse_late)

    def serve(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """What `execute` is to return: a response to each request, None where one is sent later."""
        rows = [_rows_of(request) for request in requests]
        is_split = self._changes.called(requests)
        responses: list[pb_utils.InferenceResponse | None]
        if self._backlog.idle and sum(rows) + max(rows) <= self._full_rows and not is_split:
            responses = list(self._answer(requests))
        else:
            responses = self._take(requests, rows)
        self._changes.returned()
        return responses

    def close(self) -> None:
        """Answer what waits, and take no more."""
        if not self._backlog.close():
            pb_utils.Logger.log_error(f"{self._model}: {self._backlog.rows} questions still waited when it ended")

    def _take(
        self, requests: Sequence[pb_utils.InferenceRequest], rows: Sequence[int]
    ) -> list[pb_utils.InferenceResponse | None]:
        """None for each that waits now, else what it is refused with."""
        taken = self._backlog.offer(
            Offer(item=request, rows=count, wait_s=_timeout_s(request))
            for request, count in zip(requests, rows, strict=True)
        )
        if all(taken):
            if self._has_siblings:
                self._backlog.wait_below(self._full_rows, _HOLD_S)
            return [None] * len(requests)
        self._metrics.refused("overloaded", taken.count(False))
        return [None if waits else error_response(self._overloaded(), self._model) for waits in taken]

    def _answer_waiting(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """On the backlog's thread, like the next; were it to end, nothing that waits would be answered any more."""
        try:
            responses = self._answer(requests)
        except Exception as error:  # noqa: BLE001 - the model's edge
            responses = [error_response(error, self._model)] * len(requests)
        self._send(requests, responses)
        self._metrics.tell(self._backlog.rows)

    def _refuse_late(self, requests: list[pb_utils.InferenceRequest]) -> None:
        errors = [self._late(request) for request in requests]
        for error in errors:
            self._metrics.refused(error.code)
        self._send(requests, [error_response(error, self._model) for error in errors])
        self._metrics.tell(self._backlog.rows)

    def _send(
        self, requests: Sequence[pb_utils.InferenceRequest], responses: Sequence[pb_utils.InferenceResponse]
    ) -> None:
        for request, response in zip(requests, responses, strict=True):
            try:
                Sender(request.get_response_sender()).send(response, last=True)
            except Exception as error:  # noqa: BLE001 - one that can't be had must not cost the others theirs
                pb_utils.Logger.log_error(f"{self._model}: a response could not be sent: {error}")

    def _overloaded(self) -> RagError:
        return OverloadedError(
            f"{self._backlog.rows} questions wait for this instance of {self._model}, about {self._backlog.expected_wait_s:.1f} s;"
            f" {self._limits.waiting} and {self._limits.wait_s:g} s are its limits. Try again in a moment, add servers, or raise"
            " TRITONRAG_LIMITS_WAITING or TRITONRAG_LIMITS_WAIT_S"
        )

    def _late(self, request: pb_utils.InferenceRequest) -> RagError:
        timeout_s = _timeout_s(request)
        if timeout_s is not None and timeout_s < self._bounds.longest_s:
            return DeadlineError(f"the time for this request, {timeout_s:g} s, was over before its turn came")
        return self._overloaded()


class _Changes:
    """How often the inputs that are given changed from one call to the next, in calls that followed each other at once."""

    def __init__(self) -> None:
        self._inputs: frozenset[str] = frozenset()
        self._count = 0
        self._returned_s = -_AT_ONCE_S

    def called(self, requests: Sequence[pb_utils.InferenceRequest]) -> bool:
        """Whether there were so many that there is a queue which Triton can't put into batches. All have the same inputs."""
        inputs = frozenset(tensor.name() for tensor in requests[0].inputs())
        if time.monotonic() - self._returned_s > _AT_ONCE_S:
            self._count = 0
        elif inputs != self._inputs:
            self._count += 1
        self._inputs = inputs
        return self._count >= _CHANGES

    def returned(self) -> None:
        """The call has ended."""
        self._returned_s = time.monotonic()


def _instances(config: Mapping[str, Any]) -> int:
    """How many of the model there are; a group on GPUs has its count on each."""
    return sum(int(group["count"]) * max(1, len(group.get("gpus", ()))) for group in config["instance_group"])


def _rows_of(request: pb_utils.InferenceRequest) -> int:
    """The batch dimension, which all inputs of a request share; Triton lets one of 0 rows through, which counts as one."""
    return max(1, int(request.inputs()[0].shape()[0]))


def _timeout_s(request: pb_utils.InferenceRequest) -> float | None:
    """Triton's request parameter `timeout`, in microseconds; 0 is its word for none."""
    timeout_us = request.timeout()
    return timeout_us / 1e6 if timeout_us > 0 else None
