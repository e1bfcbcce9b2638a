"""The HTTP side: one request to the server, and its answer read piece by piece."""

import asyncio
from collections import deque

import aiohttp
from pydantic import SecretStr

from tritonrag_backends.generation.openai.chunks import Piece, read_chunk
from tritonrag_backends.generation.openai.failures import Judge, ServerFailure, Verdict, cut_off, unreachable
from tritonrag_backends.generation.openai.retries import retry_after_s
from tritonrag_backends.generation.openai.sse import SseError, SseParser
from tritonrag_client.errors import UnavailableError

_ERROR_BYTES = 64 << 10
_WHOLE_BYTES = 8 << 20
_BUFFER_BYTES = 64 << 10  # what a stalled reader holds of its own answer; beyond it the server's socket fills up
_IDLE_S = 4.0  # how long an idle connection is kept: less than the 5 s of uvicorn, under vLLM and others
_DRAIN_S = 0.05  # what a finished answer waits for the end of its body, so that the connection can serve the next one


class Server:
    """The server at `url` (of chat completions). Made without a loop; belongs to the loop of its first `post`."""

    def __init__(self, url: str, *, model: str, key: SecretStr, connections: int, connect_timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.judge = Judge(model=model, secret=key)

    async def post(self, body: bytes, *, named: bool) -> "Completion":
        """Send a request and read the head of its answer; the caller aborts the result when it is done with it.

        `named`: the request itself named the model. Raises ServerFailure where the answer is none.
        """
        response = await self._request(body)
        completion = Completion(response, self.judge, named=named)
        try:
            await _require_answer(response, self.judge, named=named)
        except BaseException:  # cancelled or failed: nobody reads the rest
            completion.abort()
            raise
        return completion

    async def close(self) -> None:
        """Break off all connections."""
        if self._session is not None:
            await self._session.close()

    async def _request(self, body: bytes) -> aiohttp.ClientResponse:
        try:
            # No redirect is followed: the key would go wherever it points.
            return await self._open().post(self._url, data=body, headers=self._headers(), allow_redirects=False)
        except aiohttp.ConnectionTimeoutError:
            raise ServerFailure(self._slow_connection()) from None
        except aiohttp.ClientResponseError as error:
            # Its text and its cause may show what was sent, hence `from None` here and below.
            raise self.judge.garbage("something that is no HTTP", error.message) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise unreachable(self.judge.excerpt(f"{type(error).__name__}: {error}")) from None

    def _slow_connection(self) -> Verdict:
        error = UnavailableError(
            f"the language model's server took no connection within {self._connect_timeout_s:g} s"
            " (TRITONRAG_OPENAI_CONNECT_TIMEOUT_S); try again later"
        )
        return Verdict(error=error, again=True, log="it took no connection in time")

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # a small answer can't unpack to a large one
        }
        if key := self._key.get_secret_value():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_IDLE_S),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # no proxy of the environment, no .netrc
                auto_decompress=False,
                read_bufsize=_BUFFER_BYTES,
            )
        return self._session


class Completion:
    """An answer that is on its way."""

    def __init__(self, response: aiohttp.ClientResponse, judge: Judge, *, named: bool) -> None:
        self._response = response
        self._judge = judge
        self._named = named
        self._parser = SseParser() if response.content_type != "application/json" else None
        self._ready: deque[str] = deque()
        self._done = False
        self.whole = False  # the server told that this was all

    def abort(self) -> None:
        """Close the connection at once, so that the server stops writing; after the answer's end it is kept for others."""
        self._response.close()

    async def next_piece(self) -> Piece | None:
        """The next piece, None after the last. Raises ServerFailure where the answer breaks off or makes no sense.

        Whether an answer that ended without a finish_reason is `whole` is for the caller to judge.
        """
        while not self._ready:
            if self._done:
                return None
            await self._read()
        data = self._ready.popleft()
        if data.strip() == "[DONE]":
            self._done = self.whole = True
            self._ready.clear()
            await self._drain()
            return None
        return read_chunk(data, self._judge, named=self._named)

    async def _read(self) -> None:
        """Wait for more, or for the end."""
        try:
            if self._parser is None:
                self._ready.append(await _whole_text(self._response))
                self._done = self.whole = True
                return
            chunk = await self._response.content.readany()
            self._done = not chunk
            self._ready.extend(event.data for event in self._parser.feed(chunk))
        except SseError as error:
            raise self._judge.garbage("an event stream that is out of bounds", str(error)) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise cut_off(self._judge.excerpt(f"{type(error).__name__}: {error}")) from None

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            return  # then the connection is closed, no more


async def _require_answer(response: aiohttp.ClientResponse, judge: Judge, *, named: bool) -> None:
    """Raises ServerFailure for a status that is no success, and for a body that is neither an event stream nor JSON."""
    ok = 200
    if response.status != ok:
        wait_s = retry_after_s(response.headers.get("Retry-After"))
        raise judge.status(response.status, await _error_text(response), retry_after_s=wait_s, named=named)
    if response.content_type not in {"text/event-stream", "application/json"}:
        body = await _error_text(response)
        raise judge.garbage(f"content of type {response.content_type!r} instead of an event stream", body)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise judge.garbage("a compressed body that nobody asked for", response.headers["Content-Encoding"])


async def _error_text(response: aiohttp.ClientResponse) -> str:
    """The beginning of what the body says, as far as it comes."""
    body = bytearray()
    try:
        while len(body) < _ERROR_BYTES and (chunk := await response.content.readany()):
            body += chunk
    except (aiohttp.ClientError, ConnectionError):
        pass  # what came has to do
    return body.decode(errors="replace")


async def _whole_text(response: aiohttp.ClientResponse) -> str:
    """The body. Raises ServerFailure where it has no end."""
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > _WHOLE_BYTES:
            raise cut_off(f"its answer has more than {_WHOLE_BYTES:,} bytes")
    return body.decode(errors="replace")
