"""The raw encoder: several processes of one thread do nothing but tokenise and embed, in packed batches."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tritonrag_client.errors import BadRequestError, InternalError

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_END_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRun:
    """`texts` embedded by all processes at once. The rates of the processes are added up, so that none waits for the last one."""

    texts: int
    texts_per_s: float

    @property
    def seconds(self) -> float:
        """For all of them, at this rate."""
        return self.texts / self.texts_per_s


class RawEncoders:
    """The processes; a context manager that ends them. Between two measurements they wait, and take no CPU time.

    Raises InternalError where one does not start; what it said is on stderr.
    """

    def __init__(self, embedder: Path, *, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, embedder), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        for connection in self._connections:
            _receive(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(_END_S)
            process.kill()

    def measure(self, texts: Sequence[str]) -> RawRun:
        """Embed all of them, as passages. Raises BadRequestError where there are fewer than processes."""
        if len(texts) < len(self._connections):
            raise BadRequestError(f"{len(texts)} texts for {len(self._connections)} processes; give one for each")
        shares = deal(texts, len(self._connections))
        for connection, share in zip(self._connections, shares, strict=True):
            connection.send(share)
        seconds = [float(_receive(connection)) for connection in self._connections]
        rate = sum(len(share) / one for share, one in zip(shares, seconds, strict=True))
        return RawRun(texts=len(texts), texts_per_s=rate)


def deal(texts: Sequence[str], processes: int) -> list[list[str]]:
    """Shares of like size and length: in turn by length, there and back again."""
    shares: list[list[str]] = [[] for _ in range(processes)]
    for place, text in enumerate(sorted(texts, key=len)):
        turn, number = divmod(place, processes)
        shares[processes - 1 - number if turn % 2 else number].append(text)
    return shares


def _serve(connection: Connection, embedder: Path) -> None:
    """Open the encoder, say so, then embed what comes and answer with the seconds, until the connection ends."""
    os.environ.update(_ONE_THREAD)
    from tritonrag_backends.embedding.encoder import Encoder  # noqa: PLC0415 - after the threads are settled

    encoder = Encoder.open(embedder, threads=1)
    encoder.encode(["what is done once is not measured"], input_type="passage")
    connection.send(0.0)
    while True:
        try:
            texts: list[str] = connection.recv()
        except EOFError:
            return
        began_s = time.perf_counter()
        encoder.encode(texts, input_type="passage")
        connection.send(time.perf_counter() - began_s)


def _receive(connection: Connection) -> Any:  # noqa: ANN401 - seconds, or what comes in their place
    """The next message; raises InternalError where the process has ended."""
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise InternalError("a process of the raw encoder ended; what it said is above") from error
