"""The load: so many clients, each asking its next question when the last is answered. Runs in a process of its own.

    python -m tritonrag_perf.peers.load_process < job.json > result.json

Every kind of server gets the same: connections that stay open, requests that were made before, answers read to their last byte and
not decoded, so that what the client costs is alike. It reads the CPU time of the server's processes as its window begins and
ends.

Clients come one after the other in the first half of the warm-up. Where several workers accept from one socket, as uvicorn's do,
all that come at once go to the worker that looks first and stay with it, and the other cores have nothing to do.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

import aiohttp
import grpc
import grpc.aio

from tritonrag_client.errors import InternalError
from tritonrag_perf.peers.wire import GRPC_METHOD, HTTP_PATHS, Protocol, request
from tritonrag_perf.process_use import cpu_seconds_of

Ask = Callable[[bytes], Awaitable[bytes]]
_TIMEOUT_S: Final = 120.0
_OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do. `address` is host:port, `pids` are the server's processes; nothing counts in the first `warm_up_s`, in whose
    first half the clients come.
    """

    protocol: Protocol
    address: str
    questions: tuple[str, ...]
    k: int
    clients: int
    warm_up_s: float
    seconds: float
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What came of it: latencies of the answers that came in the window, CPU times of the server and of the client in it."""

    seconds: float
    latencies_ms: tuple[float, ...]
    server_cpu_s: float
    client_cpu_s: float


@asynccontextmanager
async def connected(protocol: Protocol, address: str, *, clients: int) -> AsyncIterator[Ask]:
    """How to ask, over as many kept connections as clients (HTTP), or over one channel (gRPC, as its users do).

    Asking raises InternalError where the server's answer is an error.
    """
    if protocol == "triton_grpc":
        async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
            call = channel.unary_unary(GRPC_METHOD)  # bytes in, bytes out

            async def ask_grpc(message: bytes) -> bytes:
                try:
                    answer: bytes = await call(message, timeout=_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    raise InternalError(
                        f"the server at {address} answered {error.code()}: {error.details()}"
                    ) from error
                return answer

            yield ask_grpc
        return
    url, headers = f"http://{address}{HTTP_PATHS[protocol]}", {"Content-Type": "application/json"}
    connector, timeout = aiohttp.TCPConnector(limit=clients), aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def ask_http(body: bytes) -> bytes:
            async with session.post(url, data=body) as response:
                answer = await response.read()
            if response.status != _OK:
                raise InternalError(f"the server at {address} answered {response.status}: {answer[:200]!r}")
            return answer

        yield ask_http


async def run(job: Job) -> Window:
    """Do the job. Raises InternalError with the first error answer, and what the connection raises where it breaks."""
    requests = [request(job.protocol, question, job.k) for question in job.questions]
    async with connected(job.protocol, job.address, clients=job.clients) as ask:
        load = _Load(ask, requests, job)
        async with asyncio.TaskGroup() as tasks:
            for number in range(job.clients):
                tasks.create_task(load.client(number))
            tasks.create_task(load.watch())
    return load.window()


class _Load:
    """The clients and the clock of one job."""

    def __init__(self, ask: Ask, requests: Sequence[bytes], job: Job) -> None:
        self._ask, self._requests, self._job = ask, requests, job
        self._answered: list[tuple[float, float]] = []  # when, and after how long
        self._over = False
        self._at: list[
            tuple[float, float, float]
        ] = []  # clock, the server's CPU time, ours: as the window begins and ends

    async def client(self, number: int) -> None:
        """One client: the questions in turn, from a place of its own."""
        place = number * len(self._requests) // self._job.clients
        await asyncio.sleep(self._job.warm_up_s / 2 * number / self._job.clients)
        while not self._over:
            began_s = time.perf_counter()
            await self._ask(self._requests[place % len(self._requests)])
            ended_s = time.perf_counter()
            self._answered.append((ended_s, ended_s - began_s))
            place += 1

    async def watch(self) -> None:
        """Open and close the window."""
        for wait_s in (self._job.warm_up_s, self._job.seconds):
            await asyncio.sleep(wait_s)
            self._at.append((time.perf_counter(), cpu_seconds_of(self._job.pids), time.process_time()))
        self._over = True

    def window(self) -> Window:
        """What fell into it."""
        (began_s, server_s, client_s), (ended_s, server_end_s, client_end_s) = self._at
        return Window(
            seconds=ended_s - began_s,
            latencies_ms=tuple(1e3 * took for when, took in self._answered if began_s <= when <= ended_s),
            server_cpu_s=server_end_s - server_s,
            client_cpu_s=client_end_s - client_s,
        )


def main() -> None:
    """Read the job, do it, write what came of it."""
    given = json.load(sys.stdin)
    job = Job(**{**given, "questions": tuple(given["questions"]), "pids": tuple(given["pids"])})
    json.dump(asdict(asyncio.run(run(job))), sys.stdout)


if __name__ == "__main__":
    main()
