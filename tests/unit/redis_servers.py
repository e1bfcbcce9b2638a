"""A real redis-server, and what may stand between it and us or in its place."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PROGRAM = Path(sys.executable).parent / "redis-server"
_START_TRIES = 500  # of 20 ms


@dataclass
class RedisServer:
    """On a unix socket, keeping nothing on disk."""

    folder: Path
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        command = [str(PROGRAM), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", *self.options], stdout=subprocess.DEVNULL
        )
        for _ in range(_START_TRIES):
            if self._answers():
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.02)
                raise AssertionError(f"redis-server ended with {self.process.returncode}")
        raise AssertionError("redis-server does not answer")

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                client.ping()
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False
            return True

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    server = RedisServer(Path(tempfile.mkdtemp(prefix="tr-")), options)  # a socket's path must be short
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)


@dataclass
class Between:
    """Passes bytes on while `open` is set, and ends each connection after `most_bytes` of answers."""

    url: str
    open: asyncio.Event = field(default_factory=asyncio.Event)
    most_bytes: int | None = None
    connections: int = 0


@asynccontextmanager
async def in_between(server: RedisServer) -> AsyncIterator[Between]:
    """A TCP address in front of the server."""
    tasks: set[asyncio.Task[None]] = set()
    between = Between("")
    between.open.set()

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(65536):
            await between.open.wait()
            if answers and between.most_bytes is not None:
                data = data[: between.most_bytes]
            sink.write(data)
            await sink.drain()
            if answers and between.most_bytes is not None:
                return

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        between.connections += 1
        there, back = await asyncio.open_unix_connection(server.socket)
        ways = {
            asyncio.ensure_future(copy(reader, back, answers=False)),
            asyncio.ensure_future(copy(there, writer, answers=True)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(back)

    async with _listening(serve, tasks) as port:
        between.url = f"redis://127.0.0.1:{port}/0"
        yield between


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """A server that says this, whatever it hears; gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(reply)
            await writer.drain()

    async with _listening(serve, tasks) as port:
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def _listening(serve: Serve, tasks: set[asyncio.Task[None]]) -> AsyncIterator[int]:
    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            await _close(writer)
            tasks.discard(task)

    server = await asyncio.start_server(counted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(set(tasks))
        await server.wait_closed()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
