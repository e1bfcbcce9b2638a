"""One try of one answer: what it asks, what comes back, and what breaker and log learn of it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tritonrag_backends.generation.breaker import Attempt
from tritonrag_backends.generation.openai.answer import Answer
from tritonrag_backends.generation.openai.chunks import Piece
from tritonrag_backends.generation.openai.failures import ServerFailure, cut_off
from tritonrag_backends.generation.openai.server import Completion, Server
from tritonrag_backends.generation.openai.waits import Waits, closed_error
from tritonrag_client.errors import DeadlineError

_USAGE_S = 1.0  # what the count of tokens may take to come after the end of the text
_END_S = 0.05  # what the end of a finished answer's body may take, so that its connection serves the next one

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Until when something may take, by the loop's clock, and what is raised then."""

    by_s: float
    spent: DeadlineError


class Exchange:
    """Begin it, then read it in a `with` statement: leaving that breaks off what has not ended."""

    def __init__(self, server: Server, attempt: Attempt, waits: Waits) -> None:
        self._server = server
        self._attempt = attempt
        self._waits = waits
        self._completion: Completion | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    async def begin(self, body: bytes, budget: Budget, *, named: bool) -> Piece:
        """Ask, and wait until the model begins. Raises ServerFailure or DeadlineError, and has ended itself then."""
        try:
            async with self._waiting(budget):
                self._completion = await self._server.post(body, named=named)
                piece = await self._first_piece(self._completion)
        except BaseException:  # cancelled, too
            self._end()
            raise
        self._attempt.answers()
        return piece

    async def next_piece(self, budget: Budget) -> Piece:
        """What comes next; raises ServerFailure where the answer breaks off before its end, or DeadlineError."""
        completion = self._begun()
        async with self._waiting(budget):
            piece = await completion.next_piece()
            if piece is None and not completion.whole:
                raise cut_off("it ended the answer without a finish_reason or [DONE]")
        return piece or Piece(finish_reason="stop")

    async def finish(self, answer: Answer) -> None:
        """The text is all there: take what else is told of the answer, as far as it comes soon."""
        self._attempt.succeeded()
        if answer.cut:
            return
        loop = asyncio.get_running_loop()
        by_s = loop.time() + (_END_S if answer.usage else _USAGE_S)
        try:
            async with asyncio.timeout_at(by_s):
                while (piece := await self._begun().next_piece()) is not None:
                    answer.push(piece)
        except (TimeoutError, ServerFailure) as error:
            _log.debug("after the end of an answer: %s", error)  # the answer is none the worse for it

    @staticmethod
    async def _first_piece(completion: Completion) -> Piece:
        while (piece := await completion.next_piece()) is not None:
            if piece.begins:
                return piece
        raise cut_off("it ended the answer before it began")

    def _begun(self) -> Completion:
        if self._completion is None:
            raise RuntimeError("an exchange is read before it was begun")
        return self._completion

    def _end(self) -> None:
        if self._completion is not None:
            self._completion.abort()
        self._attempt.end()

    @asynccontextmanager
    async def _waiting(self, budget: Budget) -> AsyncGenerator[None, None]:
        """Wait within the budget; a failure of the server is told to breaker and log."""
        in_time = asyncio.get_running_loop().time() < budget.by_s  # else it is the reader who was late
        try:
            async with self._waits.until(budget.by_s, budget.spent):
                yield
        except DeadlineError as error:
            if in_time:
                self._attempt.failed()
                _log.warning("the language model's server failed: %s", error)
            raise
        except ServerFailure as failure:
            if self._waits.closed:
                raise closed_error() from None
            if failure.verdict.counts:
                self._attempt.failed()
                _log.warning("the language model's server failed: %s", failure.verdict.log)
            raise  # what does not count is the request's own affair, and no line in the log for each that asks for it
