"""The raw encoder: several processes of one thread do nothing but tokenise and embed, in packed batches."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tritonrag_client.errors import BadRequestError
from tritonrag_perf.worker_processes import ONE_THREAD, WorkerProcesses

_EMBED_S: Final = 3600.0  # for as many texts as anybody measures with


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRun:
    """`texts` embedded by all processes at once. The rates of the processes are added up, so that none waits for the last one."""

    texts: int
    texts_per_s: float

    @property
    def seconds(self) -> float:
        """For all of them, at this rate."""
        return self.texts / self.texts_per_s


class RawEncoders(WorkerProcesses):
    """The processes that embed."""

    def __init__(self, embedder: Path, *, processes: int) -> None:
        super().__init__("raw encoder", _serve, [(embedder,)] * processes)

    def measure(self, texts: Sequence[str]) -> RawRun:
        """Embed all of them, as passages. Raises BadRequestError where there are fewer than processes."""
        if len(texts) < len(self.connections):
            raise BadRequestError(f"{len(texts)} texts for {len(self.connections)} processes; give one for each")
        shares = deal(texts, len(self.connections))
        for connection, share in zip(self.connections, shares, strict=True):
            connection.send(share)
        seconds = [float(self.receive(connection, _EMBED_S)) for connection in self.connections]
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
    os.environ.update(ONE_THREAD)
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
