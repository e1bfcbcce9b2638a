"""What the supervisor asks of Triton over HTTP: canaries, model control, counts."""

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from tritonrag_client.errors import InternalError, UnavailableError

_OK: Final = 200
_POLL_S: Final = 0.05
_CONNECTIONS: Final = 16


class TritonApi:
    """A connection to one Triton; lives in one event loop. `headers` open what Triton restricts.

    No call has an end of its own but for `asyncio.timeout` around it.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, dict(headers)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # A load holds one of Triton's HTTP threads until it is done, and with it every connection that this thread has accepted
            # before: a canary on one of them would wait too. A new connection is accepted by a thread that is free.
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,  # Triton is on this machine: no proxy
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body of the answer. Raises UnavailableError where there is none."""
        return await self._request("POST", path, body)

    async def successes(self) -> dict[str, int]:
        """How many requests each model has completed so far. Raises UnavailableError, InternalError."""
        status, body = await self._request("GET", "/v2/models/stats")
        if status != _OK:
            raise InternalError(f"Triton's statistics answer with status {status}")
        models = json.loads(body)["model_stats"]
        return {model["name"]: model["inference_stats"]["success"]["count"] for model in models}

    async def is_ready(self, model: str) -> bool:
        """Whether Triton says that a model is ready."""
        status, _ = await self._request("GET", f"/v2/models/{model}/ready")
        return status == _OK

    async def unload(self, model: str) -> None:
        """Have a model unloaded, and wait until it is no more. Raises InternalError, UnavailableError."""
        await self._control(model, "unload")
        while await self.is_ready(model):  # noqa: ASYNC110 - Triton tells it to those alone who ask
            await asyncio.sleep(_POLL_S)

    async def load(self, model: str) -> None:
        """Have a model loaded; returns when it is. Raises InternalError with Triton's reason, UnavailableError."""
        await self._control(model, "load")

    async def _control(self, model: str, what: str) -> None:
        status, body = await self.post(f"/v2/repository/models/{model}/{what}", {})
        if status != _OK:
            raise InternalError(f"Triton does not {what} it, status {status}: {body.decode(errors='replace')[:300]}")

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        try:
            async with self._opened.request(method, self._url + path, json=body, headers=self._headers) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"Triton does not answer: {error or type(error).__name__}") from error

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise UnavailableError("the connection is not open")
        return self._session
