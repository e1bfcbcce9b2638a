"""A response sender that can't be used after its end."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils


class Sender:
    """Sends the responses of one decoupled request.

    Triton frees the request with the last response, and a question about it afterwards ends in a segmentation fault of the whole
    server (release 24.10, TRITONBACKEND_ResponseFactoryIsCancelled). Here nothing reaches Triton after the end.
    """

    def __init__(self, sender: pb_utils.ResponseSender) -> None:
        self._sender = sender
        self._ended = False

    def send(self, response: pb_utils.InferenceResponse, *, last: bool) -> None:
        """Send a response; `last` ends the request. After the end it is dropped."""
        if not self._ended:
            self._ended = last
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)

    def is_cancelled(self) -> bool:
        """Whether the client is gone; false after the end."""
        return not self._ended and self._sender.is_cancelled()

    def close(self) -> None:
        """End the request where no response did."""
        if not self._ended:
            self._ended = True
            self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
