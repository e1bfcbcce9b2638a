"""One streamed answer: reading it on, and leaving it early, written once for threads and for asyncio."""

import logging
import threading
from functools import partial
from typing import Any, Final

import grpc

from tritonrag_client._answers import AnswerProgress, join
from tritonrag_client._budget import Budget, put_timeout
from tritonrag_client._core import LEAVE_S, AnswerJob
from tritonrag_client._flows import Flow, Flows, Reader
from tritonrag_client._status import from_text
from tritonrag_client._wire import Message
from tritonrag_client.errors import NotFoundError, RagError, RequestCancelledError
from tritonrag_client.results import Answer, AnswerDelta

# A stop is sent after each of these seconds until the server has found the generation. Before the first of them an answer
# that is quick, or all but complete, ends by itself; the others are for one whose retrieval still ran at the stop before.
_STOP_AFTER_S: Final = (0.02, 0.1, 0.3)
_logger = logging.getLogger("tritonrag_client")


class AnswerFlow:
    """One streamed answer. One thread or task reads it; any thread, or any task of the loop, may give it up."""

    def __init__(self, flows: Flows, job: AnswerJob) -> None:
        self._flows, self._job = flows, job
        self._call: Reader | None = None  # the call that has not ended, until `leave` takes it over
        self._taking = threading.Lock()
        self._sent = False
        self._leaving: Any = None

    @property
    def progress(self) -> AnswerProgress:
        """How far the answer is."""
        return self._job.progress

    def next_delta(self) -> Flow[AnswerDelta | None]:
        """The next piece, None after the last. Tries again as long as no piece has come."""
        while not self.progress.ended:
            try:
                delta = yield from self._read()
            except RagError as error:
                yield from self._leave_and_wait()
                pause_s = self.progress.pause_s(error)
            else:
                if delta is not None:
                    return delta
                continue
            yield from self._flows.pause(pause_s)
        return None

    def whole(self) -> Flow[Answer]:
        """The whole answer."""
        deltas = []
        while (delta := (yield from self.next_delta())) is not None:
            deltas.append(delta)
        return join(deltas)

    def give_up(self) -> Any | None:  # noqa: ANN401 - a thread or a task
        """Mark the answer as unwanted and begin to leave it, without waiting. What `ended` takes; None where nothing is left."""
        first = self.progress.cancel()
        if self._leaving is None and (self._call is not None or (first and self._sent and self.progress.outlived)):
            self._leaving = self._flows.flavour.start(self.leave(), holds_exit=True)
        return self._leaving

    def leave(self) -> Flow[None]:
        """Have the server end the call and read it out; end it from here only where that takes longer than about LEAVE_S.

        Triton 2.51.0 loses the state of a call that is cancelled while responses to it are queued: the model then counts as
        in use, and the server's shutdown waits its whole exit timeout for it (measured: 30 s after 40 such calls).
        """
        budget = self._flows.core.leave_budget()
        call = self._take()
        if call is None:
            if self.progress.outlived:
                yield from self._tell(budget)
            return
        ended = partial(self._flows.flavour.ended, self._flows.flavour.start(self._read_out(call), holds_exit=False))
        try:
            for pause_s in _STOP_AFTER_S:
                if (yield partial(ended, pause_s)):
                    return
                if self.progress.complete or (yield from self._tell(budget)):
                    break
            if not (yield partial(ended, max(0.0, budget.left_s()))):
                call.cancel()
                yield partial(ended, LEAVE_S)  # at once, but the channel must not be closed before
        finally:
            self._flows.running.discard(self)

    def _leave_and_wait(self) -> Flow[None]:
        """Leave a call that failed without having ended, such as one that brought nonsense.

        In the background, so that a task that is cancelled meanwhile does not break it off.
        """
        if self._call is not None:
            self._leaving = self._flows.flavour.start(self.leave(), holds_exit=True)
            yield partial(self._flows.flavour.ended, self._leaving, 2 * LEAVE_S)

    def _tell(self, budget: Budget) -> Flow[bool]:
        """Tell the server that nobody wants the answer any more; False where it knows of none. Failing is only logged."""
        try:
            yield from self._flows.stop(self.progress.request_id, self._job.tenant, budget, at=self._job.tries.server)
        except NotFoundError:
            _logger.debug("request %s did not run when it should be stopped", self.progress.request_id)
            return False
        except RagError as error:
            _logger.warning("request %s may go on at the server: %s", self.progress.request_id, error)
        return True

    def _read(self) -> Flow[AnswerDelta | None]:
        self.progress.require_wanted()
        call = self._call
        if call is None:
            call = yield from self._begin()
        self.progress.require_wanted()  # `give_up` may have come before there was a call to leave
        message = yield from self._next_message(call)
        self.progress.require_wanted()
        delta = self.progress.accept(message)
        if self.progress.complete:
            yield from self._read_out(call)
            self.progress.ended = True
            self._job.tries.succeeded()
        return delta

    def _next_message(self, call: Reader) -> Flow[Message | None]:
        """The next message, None at the end. Raises what the server says of a failure."""
        budget, server = self._job.budget, self._job.tries.server
        try:
            message = yield call.read
        except grpc.RpcError as error:
            self._take(over=True)
            raise self._flows.core.failure(error, budget, server) from error
        if message is None:
            self._take(over=True)
        elif message.error_message:
            yield from self._read_out(call)
            raise (yield from self._flows.judged(from_text(message.error_message), server, budget))
        return message

    def _begin(self) -> Flow[Reader]:
        server = yield from self._flows.reach(self._job.tries, self._job.budget)
        # The message is the same for each try, the time that is left is not.
        put_timeout(self._job.request, self._job.budget)
        call = self._flows.calls[server].stream(self._job.request, timeout=self._job.budget.remaining_s())
        self._leaving, self._sent = None, True
        self._flows.running.add(self)
        self._call = reader = self._flows.flavour.reader(call)
        return reader

    def _take(self, *, over: bool = False) -> Reader | None:
        """The call, for one only: who takes it sees to its end, unless it is `over`."""
        with self._taking:
            call, self._call = self._call, None
        if over and call is not None:
            self._flows.running.discard(self)
        return call

    def _read_out(self, call: Reader) -> Flow[None]:
        """Read a call to its end, which comes by itself.

        Ending it from here is a race that Triton 2.51.0 can lose by a segmentation fault (measured: after 669 calls that were
        ended at their last word; server pull requests 7840 and 8078 mend such races in later releases).
        """
        try:
            while (yield call.read) is not None:
                pass
        except (grpc.RpcError, RequestCancelledError) as error:
            _logger.debug("request %s ended with %r while it was read out", self.progress.request_id, error)
        self._take(over=True)
