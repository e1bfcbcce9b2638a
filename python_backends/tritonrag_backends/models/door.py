"""The door of a model that batches: what may wait is bounded, and what finds no room is told so at once.

Triton's own queue has no bound here: one would cost its wake-ups (docs/triton-notes.md). So the door stands in the model, and takes
over the queue when there is one to speak of:

    a batch that is not full   nothing else waits: it is answered as it came, nothing is gained or lost
    a full one                 more may wait in Triton: it waits here, in a `Backlog`, for a thread that answers it by response
                               senders, and Triton hands over what it has. From then on all requests come here as they arrive,
                               wait where there is room and are refused where there is none, until nothing waits any more.

In the second case requests that Triton would not put into one batch, for their inputs differ, share one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import triton_python_backend_utils as pb_utils

from tritonrag_backends.backlog import Backlog, Bounds
from tritonrag_backends.models.edge import error_response
from tritonrag_backends.models.instances import instance_name
from tritonrag_backends.models.metrics import DoorMetrics
from tritonrag_backends.models.sender import Sender
from tritonrag_backends.settings import LimitSettings
from tritonrag_client.errors import DeadlineError, OverloadedError, RagError

# What answers a batch: a response to each request, in their order.
Answer: TypeAlias = Callable[[list["pb_utils.InferenceRequest"]], list["pb_utils.InferenceResponse"]]


class Door:
    """Stands in one instance of `model`, whose `answer` never runs twice at a time."""

    def __init__(self, model: str, limits: LimitSettings, args: Mapping[str, str], answer: Answer) -> None:
        """`args` is what Triton hands to `initialize`."""
        self._model, self._limits, self._answer = model, limits, answer
        self._full_rows = int(json.loads(args["model_config"])["max_batch_size"])
        self._metrics = DoorMetrics(model, instance_name(args))
        self._bounds = bounds = Bounds(rows=limits.waiting, wait_s=limits.wait_s, batch_rows=self._full_rows)
        self._backlog: Backlog[pb_utils.InferenceRequest] = Backlog(bounds, self._answer_waiting, self._refuse_late)

    def serve(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """What `execute` is to return: a response to each request, None where one is sent later."""
        rows = [_rows_of(request) for request in requests]
        if self._backlog.idle and sum(rows) < self._full_rows:
            return list(self._answer(requests))
        return [self._take(request, count) for request, count in zip(requests, rows, strict=True)]

    def close(self) -> None:
        """Answer what waits, and take no more."""
        if not self._backlog.close():
            pb_utils.Logger.log_error(f"{self._model}: {self._backlog.rows} questions still waited when it ended")

    def _take(self, request: pb_utils.InferenceRequest, rows: int) -> pb_utils.InferenceResponse | None:
        """None where it waits now, else what it is refused with."""
        if self._backlog.offer(request, rows, _timeout_s(request)):
            return None
        self._metrics.refused("overloaded")
        return error_response(self._overloaded(), self._model)

    def _answer_waiting(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """On the backlog's thread, like the next; were it to end, nothing that waits would be answered any more."""
        try:
            responses = self._answer(requests)
        except Exception as error:  # noqa: BLE001 - the model's edge
            responses = [error_response(error, self._model)] * len(requests)
        self._send(requests, responses)
        self._metrics.tell(self._backlog.rows)

    def _refuse_late(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            error = self._late(request)
            self._metrics.refused(error.code)
            self._send([request], [error_response(error, self._model)])

    def _send(
        self, requests: Sequence[pb_utils.InferenceRequest], responses: Sequence[pb_utils.InferenceResponse]
    ) -> None:
        for request, response in zip(requests, responses, strict=True):
            try:
                Sender(request.get_response_sender()).send(response, last=True)
            except pb_utils.TritonModelException as error:  # one that can't be had must not cost the others theirs
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


def _rows_of(request: pb_utils.InferenceRequest) -> int:
    """The batch dimension, which all inputs of a request share."""
    return int(request.inputs()[0].shape()[0])


def _timeout_s(request: pb_utils.InferenceRequest) -> float | None:
    """Triton's request parameter `timeout`, in microseconds; 0 is its word for none."""
    timeout_us = request.timeout()
    return timeout_us / 1e6 if timeout_us > 0 else None
