"""One answer inside the library: asked for, read step by step, and aborted once where nobody reads on."""

import asyncio
import logging
from typing import Any

from tritonrag_backends.generation.engine import Usage
from tritonrag_backends.generation.tensorrt_llm.foreign import Foreign
from tritonrag_client.errors import InternalError, UnavailableError

_LOG = logging.getLogger(__name__)
_CLOSING = "the engine is closing; ask again in a while"


class Generation:
    """Wraps the library's RequestOutput. Made and used in one event loop."""

    def __init__(self, result: Foreign, prompt_tokens: int, request_error: type[Exception]) -> None:
        self._result = result
        self._steps = aiter(result)
        self._prompt_tokens = prompt_tokens
        self._request_error = request_error
        self._reader: asyncio.Task[Any] | None = None
        self._closing = False
        self._aborted = False

    async def step(self) -> Foreign:
        """The library's CompletionOutput with the text so far; None after the last.

        Raises InternalError where the library failed this request, UnavailableError where the whole engine did or is closed.
        """
        self._require_open()
        self._reader = asyncio.current_task()
        try:
            await anext(self._steps)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if self._closing and self._reader is not None:  # by `end`, not by the one who reads
                self._reader.uncancel()
                raise UnavailableError(_CLOSING) from None
            raise
        except self._request_error as error:
            _LOG.error("tensorrt_llm failed a request: %s", error)
            raise InternalError("the tensorrt_llm engine failed this answer; the server's log says why") from error
        except (RuntimeError, OSError, ValueError, AssertionError) as error:
            _LOG.exception("tensorrt_llm failed")
            raise UnavailableError("the tensorrt_llm engine has failed; the server's log says why") from error
        finally:
            self._reader = None
        return self._result.outputs[0]

    def _require_open(self) -> None:
        if self._closing:
            raise UnavailableError(_CLOSING)

    def usage(self) -> Usage:
        """Tokens so far; those reused are known where the release tells them."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._result.outputs[0].token_ids),
            cached_tokens=int(getattr(self._result, "cached_tokens", 0) or 0),
        )

    def abort(self) -> None:
        """Stop the work and free its memory, unless it is done; at most once."""
        if self._aborted or self._result.finished:
            return
        self._aborted = True
        try:
            self._result.abort()
        except (RuntimeError, OSError, AssertionError, AttributeError):  # the executor is gone, and the work with it
            _LOG.warning("tensorrt_llm could not abort a request", exc_info=True)

    def end(self) -> None:
        """Abort, and let who waits for the next step get UnavailableError."""
        self._closing = True
        self.abort()
        if self._reader is not None:
            self._reader.cancel()
