"""What a stream of a generator's responses means, whichever way they are read."""

from collections.abc import Iterable

from tritonrag_client._budget import Tries
from tritonrag_client._responses import is_final, parse_delta
from tritonrag_client._wire import Message
from tritonrag_client.contract import Source
from tritonrag_client.errors import DeadlineError, InternalError, RagError, RequestCancelledError
from tritonrag_client.results import Answer, AnswerDelta


class AnswerProgress:
    """How far one streamed answer is. Reading happens on one thread; `cancel` may come from any."""

    def __init__(self, request_id: str, tries: Tries, *, survives_us: bool) -> None:
        """`survives_us`: the server goes on when the call's deadline ends it, so that it has to be told to stop."""
        self.request_id = request_id
        self.sources: tuple[Source, ...] = ()
        self.finish_reason = ""
        self.ended = self.complete = False
        self._tries, self._survives_us = tries, survives_us
        self._answering = self._cancelled = False
        self._failure: RagError | None = None

    def require_wanted(self) -> None:
        """Raises RequestCancelledError after `cancel`: what was read is not the whole answer."""
        if self._cancelled:
            raise RequestCancelledError("this stream was cancelled here, before its last response")

    def accept(self, message: Message | None) -> AnswerDelta | None:
        """Take the next message, None for the end of the stream, and give what it adds to the answer.

        Raises InternalError where the stream ends before the answer does.
        """
        delta = None if message is None else parse_delta(message.infer_response, self.request_id)
        if delta is not None and not self._answering:
            self._answering, self.sources = True, delta.sources
        if delta is not None:
            self.finish_reason = delta.finish_reason or self.finish_reason
        ends = message is None or is_final(message.infer_response)
        self.complete = self._answering and message is not None and (ends or bool(delta and delta.finish_reason))
        if ends and not self.complete:
            raise InternalError("the stream ended before the answer did; what came so far is not the whole of it")
        return delta

    def pause_s(self, error: RagError) -> float:
        """Seconds to wait before the request is sent anew; raises `error` where it is not: never once an answer has begun."""
        try:
            self.require_wanted()
            if self._answering:
                raise error
            return self._tries.pause_s(error)
        except RagError as final:
            self.ended, self._failure = True, final
            raise

    def cancel(self) -> bool:
        """Mark as no longer wanted; True the first time, unless the answer is complete."""
        if self.complete or self._cancelled:
            return False
        self._cancelled = True
        return True

    @property
    def outlived(self) -> bool:
        """Whether the server goes on although the call has ended."""
        return self._survives_us and isinstance(self._failure, DeadlineError)


def join(deltas: Iterable[AnswerDelta]) -> Answer:
    """The deltas of a complete stream, at least one, as one answer."""
    parts = list(deltas)
    return Answer(
        text="".join(part.text for part in parts),
        sources=parts[0].sources,
        finish_reason=next((part.finish_reason for part in reversed(parts) if part.finish_reason), ""),
        degraded="; ".join(dict.fromkeys(part.degraded for part in parts if part.degraded)),
        request_id=parts[0].request_id,
    )
