"""When the engine fails: another answer, whole, that says so; never half an answer glued to another."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from tritonrag_backends.generation.engine import Delta
from tritonrag_client.errors import (
    BadRequestError,
    DeadlineError,
    InternalError,
    RagError,
    RequestCancelledError,
    UnavailableError,
)

_LOG = logging.getLogger(__name__)


async def with_fallback(
    primary: AsyncGenerator[Delta, None],
    begin_fallback: Callable[[], AsyncGenerator[Delta, None]],
    *,
    engine: str,
    strict: bool,
    stream: bool,
    on_failure: Callable[[str], object],
) -> AsyncGenerator[Delta, None]:
    """The primary's deltas; where it fails before any text was passed on, the fallback's, the first of them `degraded`.

    With `stream` false nothing is passed on before the answer is complete. With `stream` true an answer that breaks off ends
    with finish_reason `error`. With `strict` the error is raised instead, an unforeseen one as InternalError. A stream that ends
    without a finish_reason has failed too. `on_failure` is told the error's code. Raises BadRequestError and
    RequestCancelledError in any case: no other engine would do better. Both generators are closed.
    """
    passed_on = leaving = False
    try:
        async with aclosing(primary), aclosing(_held_back(primary, engine, stream=stream)) as deltas:
            async for delta in deltas:
                passed_on = leaving = True
                yield delta
                if delta.finish_reason is not None:
                    return
                leaving = False
    except (BadRequestError, RequestCancelledError):
        raise
    except Exception as caught:
        if leaving:  # it comes from closing, and there is nobody to answer any more
            raise
        error = _as_ours(caught, engine)
    on_failure(error.code)
    if strict:
        raise error
    if passed_on:
        told = f"the {engine} engine failed in mid-answer ({error.code}); what came is not the whole answer"
        yield Delta(text="", finish_reason="error", degraded=told)
        return
    async with aclosing(_quoted(begin_fallback(), engine, error.code)) as quoted:
        async for delta in quoted:
            yield delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds for which an engine may write nothing: before its first delta, and before each that follows."""

    first_s: float = math.inf
    next_s: float = math.inf


async def without_stalls(
    deltas: AsyncGenerator[Delta, None], patience: Patience, *, engine: str
) -> AsyncGenerator[Delta, None]:
    """The deltas. Raises DeadlineError where one does not come in time, and what they raise; closes them."""
    allowed_s, variable = patience.first_s, "FIRST_TOKEN_TIMEOUT_S"
    async with aclosing(deltas):
        while True:
            try:
                async with asyncio.timeout(None if math.isinf(allowed_s) else allowed_s) as wait:
                    delta = await anext(deltas, None)
            except TimeoutError:
                if not wait.expired():  # the engine's own
                    raise
                raise DeadlineError(
                    f"the {engine} engine wrote nothing for {allowed_s:g} s; try again later, or raise"
                    f" TRITONRAG_GENERATOR_{variable} on the server"
                ) from None
            if delta is None:
                return
            yield delta
            allowed_s, variable = patience.next_s, "NEXT_TOKEN_TIMEOUT_S"


async def _held_back(deltas: AsyncGenerator[Delta, None], engine: str, *, stream: bool) -> AsyncGenerator[Delta, None]:
    """The deltas, held back until the first text, or without `stream` until the last. Raises where they end without one."""
    held: list[Delta] = []
    flowing = False
    async for delta in deltas:
        if delta.finish_reason == "error":
            break
        held.append(delta)
        flowing = flowing or (stream and bool(delta.text))
        if flowing or delta.finish_reason is not None:
            for ready in held:
                yield ready
            held.clear()
    raise UnavailableError(f"the {engine} engine's answer broke off; try again")


async def _quoted(deltas: AsyncGenerator[Delta, None], engine: str, code: str) -> AsyncGenerator[Delta, None]:
    """The fallback's deltas, of which the first tells why."""
    told = f"the {engine} engine failed ({code}): answered by quoting sentences instead"
    async with aclosing(deltas):
        async for delta in deltas:
            degraded = "; ".join(filter(None, (told, delta.degraded)))
            told = ""
            yield Delta(text=delta.text, finish_reason=delta.finish_reason, degraded=degraded, usage=delta.usage)


def _as_ours(error: Exception, engine: str) -> RagError:
    if isinstance(error, RagError):
        return error
    _LOG.error("the %s engine failed in a way that was not foreseen", engine, exc_info=error)
    internal = InternalError(f"the {engine} engine failed; the server's log tells why")
    internal.__cause__ = error
    return internal
