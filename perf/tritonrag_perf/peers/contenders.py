"""Those that are measured side by side, each started for its turn and stopped after it: the peers, and our server."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tritonrag.launcher import TritonServer
from tritonrag.processes import session_members
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings, load_settings
from tritonrag_client.contract import RETRIEVE
from tritonrag_perf.peers import wire
from tritonrag_perf.peers.catalog import Peer, environment
from tritonrag_perf.peers.server import HOST, free_port, peer_server

OURS: Final = "tritonrag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One way to ask a server. `name` stands in the record."""

    name: str
    protocol: wire.Protocol
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers, for as long as its turn lasts. `pids` finds all its processes."""

    endpoints: tuple[Endpoint, ...]
    pids: Callable[[], list[int]]
    started_s: float


class Contender(Protocol):
    """Something to measure. `precision` is that of its encoder."""

    @property
    def name(self) -> str:
        """Its name on the command line and in a failure."""

    @property
    def precision(self) -> str:
        """Either int8 or fp32."""

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Start it; stop it as the block is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerContender:
    """A peer, over exported `data`, logging into `logs`."""

    peer: Peer
    python: Path
    data: Path
    logs: Path

    @property
    def name(self) -> str:
        """The peer's, with its label."""
        return self.peer.shown

    @property
    def precision(self) -> str:
        """The peer's."""
        return self.peer.precision

    @contextmanager
    def running(self) -> Iterator[Running]:
        """With a worker for each core. Raises as `peer_server` does."""
        port = free_port()
        variables = environment(self.peer, data=self.data, port=port, cores=len(os.sched_getaffinity(0)))
        command = [str(self.python), "-m", self.peer.module]
        with peer_server(command, variables, port=port, log=self.logs / f"{port}.log") as server:
            endpoint = Endpoint(name=self.name, protocol="peer", address=f"{HOST}:{port}")
            yield Running(endpoints=(endpoint,), pids=server.pids, started_s=server.started_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class OurContender:
    """Our server as `tritonrag serve` starts it, but that it loads `retrieve` alone and knows no answer already."""

    settings: Settings
    protocols: tuple[wire.Protocol, ...] = ("triton_grpc", "triton_http")

    @classmethod
    def of(cls, index: Path, embedder: Path) -> "OurContender":
        """Over an index. Raises BadRequestError as `load_settings` does."""
        return cls(
            settings=load_settings(
                {
                    "TRITONRAG_INDEX": str(index),
                    "TRITONRAG_EMBEDDER_MODEL": str(embedder),
                    "TRITONRAG_RETRIEVER_CACHE_BYTES": "0",
                }
            )
        )

    @property
    def name(self) -> str:
        """Ours."""
        return OURS

    @property
    def precision(self) -> str:
        """The embedder's."""
        return "fp32" if self.settings.embedder.precision == "fp32" else "int8"

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Raises as `TritonServer.start` does."""
        began_s = time.monotonic()
        with TritonServer() as server:
            triton = server.start(ServeOptions(settings=self.settings, models=(RETRIEVE,)))
            addresses = {"triton_grpc": triton.grpc_url, "triton_http": triton.http_url.removeprefix("http://")}
            yield Running(
                endpoints=tuple(
                    Endpoint(
                        name=f"{OURS} {protocol.removeprefix('triton_')}",
                        protocol=protocol,
                        address=addresses[protocol],
                    )
                    for protocol in self.protocols
                ),
                pids=lambda: [process.pid for process in session_members(triton.pid)],
                started_s=time.monotonic() - began_s,
            )
