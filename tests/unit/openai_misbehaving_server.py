"""A server on loopback that does what a script says, byte by byte: what servers do on a bad day, and what no honest one does."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from tritonrag_backends.generation.engine import Delta, Message, Prompt, Sampling
from tritonrag_backends.generation.openai.engine import OpenaiEngine, open_openai
from tritonrag_backends.generation.openai.settings import OpenaiSettings

PATIENCE_S = 10  # of a test that waits for something that must come
KEY = "sk-made-up-key-0123456789"
PROMPT = Prompt(question="What?", passages=(), messages=(Message(role="user", content="What?"),))


@dataclass(kw_only=True)
class Request:
    """A request that came; `gone` is set when its client has closed the connection."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    connection: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)


Behaviour: TypeAlias = Callable[[asyncio.StreamWriter, Request], Awaitable[None]]


class MisbehavingServer:
    """Answers each request by the next entry of `script`, the last one again and again; used in an `async with` block."""

    def __init__(self, *script: Behaviour) -> None:
        self.script = list(script)
        self.requests: list[Request] = []
        self._connections = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.requests.append(request)
                behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                watcher = asyncio.ensure_future(_watch(reader, request))
                try:
                    await behaviour(writer, request)
                finally:
                    watcher.cancel()
                    await asyncio.gather(watcher, return_exceptions=True)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        except asyncio.CancelledError:  # the test is over; asyncio's own handler would report it
            return
        finally:
            writer.close()
            self._tasks.discard(task)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(path=first.split(" ")[1], headers=headers, fields=json.loads(body), connection=connection)


async def _watch(reader: asyncio.StreamReader, request: Request) -> None:
    """Our client never sends a request before the last one's answer has ended: what comes meanwhile is its leaving."""
    try:
        if not await reader.read(1):
            request.gone.set()
    except ConnectionError:
        request.gone.set()


def chunk(text: str | None = None, *, finish_reason: str | None = None, **more: Any) -> bytes:
    """An event with one chunk of a completion."""
    delta = {} if text is None else {"content": text}
    fields = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}
    return event(json.dumps(fields, ensure_ascii=False))


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


USAGE = event('{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}')
DONE = event("[DONE]")
WHOLE = (chunk("Hello"), chunk(" world."), chunk(finish_reason="stop"), USAGE, DONE)


def head(status: str = "200 OK", content_type: str | None = "text/event-stream", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Transfer-Encoding: chunked"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def send(writer: asyncio.StreamWriter, body: bytes) -> None:
    """One chunk of HTTP/1.1's transfer coding; of no bytes, the last one."""
    writer.write(b"%x\r\n%b\r\n" % (len(body), body))
    await writer.drain()


def streams(*chunks: bytes, ends: bool = True, then: Behaviour | None = None) -> Behaviour:
    """A stream of these chunks. `ends` false: the connection is closed in the middle of the body; `then` follows instead."""

    async def behave(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(head())
        for piece in chunks:
            await send(writer, piece)
        if then is not None:
            await then(writer, request)
        elif ends:
            await send(writer, b"")
        else:
            writer.close()

    return behave


def answers(status: str, body: str | bytes, content_type: str | None = "application/json", **headers: str) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter, request: Request) -> None:  # noqa: ARG001
        writer.write(head(status, content_type, **headers))
        if body:
            await send(writer, body if isinstance(body, bytes) else body.encode())
        await send(writer, b"")

    return behave


def says(raw: bytes) -> Behaviour:
    """These bytes and no more."""

    async def behave(writer: asyncio.StreamWriter, request: Request) -> None:  # noqa: ARG001
        writer.write(raw)
        writer.close()

    return behave


async def stalls(writer: asyncio.StreamWriter, request: Request) -> None:  # noqa: ARG001
    """Says nothing until the client is gone."""
    await request.gone.wait()


async def closes(writer: asyncio.StreamWriter, request: Request) -> None:  # noqa: ARG001
    writer.close()


def without_end(piece: bytes, *, before: bytes = b"") -> Behaviour:
    """The same bytes again and again until the client is gone."""

    async def behave(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(before)
        while not request.gone.is_set():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return behave


def full_backlog() -> tuple[str, list[socket.socket]]:
    """An address that takes no connection and refuses none, and the sockets that keep it so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    sockets = [listener]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        sockets.append(filler)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1", sockets


def engine_at(url: str, **settings: Any) -> OpenaiEngine:
    """An engine with short pauses for a test's sake; `settings` override."""
    quick = {"first_token_timeout_s": PATIENCE_S, "total_timeout_s": PATIENCE_S, "breaker_failures": 100}
    return open_openai(OpenaiSettings(url=url, **{"model": "tiny", **quick, **settings}), {"OPENAI_API_KEY": KEY})


@asynccontextmanager
async def opened(engine: OpenaiEngine) -> AsyncGenerator[OpenaiEngine, None]:
    """The engine, closed at the end."""
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def served(*script: Behaviour, **settings: Any) -> AsyncGenerator[tuple[MisbehavingServer, OpenaiEngine], None]:
    """A server and an engine that asks it."""
    async with MisbehavingServer(*script) as server, opened(engine_at(server.url, **settings)) as engine:
        yield server, engine


async def until(condition: Callable[[], object]) -> None:
    """Wait for what must come."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the condition is not an event of ours
            await asyncio.sleep(0.001)


async def ask(engine: OpenaiEngine, prompt: Prompt = PROMPT, **sampling: Any) -> list[Delta]:
    stream = engine.generate(prompt, Sampling(**{"max_tokens": 20, **sampling}))
    return [delta async for delta in stream]


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
