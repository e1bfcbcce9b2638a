"""The peers there are, and what their answers are held to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tritonrag_client.errors import BadRequestError, NotFoundError

SOURCES: Final = Path(__file__).parents[2]  # perf/, in which the peers' package lies


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer, by the name of its folder. `precision` is its encoder's; `variables` tune its library.

    `others` are settings that are tried too where the best are sought; `label` tells such a one in the record.
    """

    name: str
    title: str
    precision: str
    variables: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Mapping[str, str], ...] = ()
    label: str = ""

    @property
    def module(self) -> str:
        """What its Python runs."""
        return f"peers.{self.name}"

    @property
    def shown(self) -> str:
        """Its name in the record."""
        return f"{self.name} {self.label}".rstrip()

    def variants(self) -> "list[Peer]":
        """Itself, and with each of the other settings."""
        return [self, *(self._with(settings) for settings in self.others)]

    def _with(self, settings: Mapping[str, str]) -> "Peer":
        label = " ".join(f"{name.removeprefix('PEER_').lower()}={value}" for name, value in settings.items())
        return replace(self, variables={**self.variables, **settings}, others=(), label=label)

    def python(self, environments: Path) -> Path:
        """Its interpreter. Raises NotFoundError where its environment was not made."""
        python = environments / self.name / "bin" / "python"
        if not (environments / self.name / "filled-from.lock").exists():
            raise NotFoundError(f"the peer {self.name} has no environment yet; `make peer NAME={self.name}`")
        return python.absolute()


# One process whose threads share the cores (the libraries let go of Python's lock as they compute); more workers than cores.
_CORES: Final = len(os.sched_getaffinity(0))
_FASTAPI: Final = (
    {"PEER_WORKERS": "1", "PEER_THREADS": str(_CORES)},
    {"PEER_WORKERS": str(_CORES + 1)},
    {"PEER_WORKERS": str(2 * _CORES)},
)
_BATCHING: Final = (
    {"PEER_BATCH": "8", "PEER_WAIT_MS": "1"},
    {"PEER_BATCH": "64", "PEER_WAIT_MS": "1"},
    {"PEER_BATCH": "32", "PEER_WAIT_MS": "5"},
    {"PEER_BATCH": "1", "PEER_WAIT_MS": "1"},
)

PEERS: Final[Mapping[str, Peer]] = {
    peer.name: peer
    for peer in (
        Peer(name="fastapi_ort", title="FastAPI + ONNX Runtime int8 + FAISS", precision="int8", others=_FASTAPI),
        Peer(
            name="fastapi_st", title="FastAPI + sentence-transformers fp32 + FAISS", precision="fp32", others=_FASTAPI
        ),
        Peer(
            name="mosec_ort",
            title="mosec, dynamic batching, the same handler (int8)",
            precision="int8",
            others=_BATCHING,
        ),
        Peer(
            name="ray_serve",
            title="Ray Serve, @serve.batch, the same handler (int8)",
            precision="int8",
            variables={
                "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                # Its own proxy is in Python, and takes more CPU time than the answer.
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                "RAY_USAGE_STATS_ENABLED": "0",
            },
            others=(*_BATCHING, {"RAY_SERVE_ENABLE_HA_PROXY": "0"}),
        ),
        Peer(name="langchain", title="LangChain (FAISS store) behind FastAPI, fp32", precision="fp32"),
        Peer(
            name="haystack",
            title="Haystack (FAISS store) behind FastAPI, fp32",
            precision="fp32",
            variables={"HAYSTACK_TELEMETRY_ENABLED": "False"},
        ),
        Peer(name="txtai", title="txtai's API, fp32", precision="fp32"),
    )
}
# One thread a worker and as many workers as cores: worth 1.4 times to every peer on two cores.
_ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_KEPT: Final = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")


def peer_named(name: str) -> Peer:
    """Raises BadRequestError that names those there are."""
    if name not in PEERS:
        raise BadRequestError(f"there is no peer {name!r}; take some of {', '.join(PEERS)}")
    return PEERS[name]


def environment(peer: Peer, *, data: Path, port: int, cores: int) -> dict[str, str]:
    """The variables of a peer's processes."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    place = {"PEER_DATA": str(data.absolute()), "PEER_PORT": str(port), "PEER_CORES": str(cores)}
    return {**kept, **_ONE_THREAD, **_OFFLINE, **peer.variables, "PYTHONPATH": str(SOURCES), **place}
