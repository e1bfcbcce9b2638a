"""What `tritonrag_perf.scale` measures: every sample as it was taken, and the figures that are made of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tritonrag_backends.index.format import CURRENT, MANIFESTS, SEGMENTS, SHARED, OperatingPoint
from tritonrag_backends.index.store import read_current, read_current_name
from tritonrag_perf.machine import Machine
from tritonrag_perf.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledIndex:
    """The live version of an index, as its manifest tells it. `points` are those of its segments, `bytes` all of its files'."""

    name: str
    passages: int
    kinds: tuple[str, ...]
    mode: str
    recall_at_10: float | None
    points: tuple[OperatingPoint, ...]
    bytes: int

    @classmethod
    def read(cls, name: str, directory: Path) -> "ScaledIndex":
        """Raises NotFoundError where `directory` holds no index, InternalError where it is damaged."""
        manifest = read_current(directory)
        return cls(
            name=name,
            passages=manifest.counts.passages,
            kinds=tuple(dict.fromkeys(segment.kind for segment in manifest.segments)),
            mode=manifest.options.mode,
            recall_at_10=manifest.recall_at_10,
            points=tuple(segment.point for segment in manifest.segments),
            bytes=sum(path.stat().st_size for path in live_files(directory)),
        )


def live_files(directory: Path) -> list[Path]:
    """Every file that the live version consists of. Raises as `ScaledIndex.read`."""
    manifest = read_current(directory)
    segments = [directory / SEGMENTS / one.id / name for one in manifest.segments for name in sorted(one.files)]
    shared = [directory / SHARED / file.name for file in manifest.shared_files]
    return [directory / CURRENT, directory / MANIFESTS / read_current_name(directory), *segments, *shared]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """`retrieve` over one index with so many clients in a closed loop, in one round.

    `server_cpu_ms` is that of all processes of the server, a question; `stable` False: the windows went on differing.
    """

    round: int
    index: str
    clients: int
    questions_per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cores: float
    stable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A server with one index from its start until it was ready, after all bytes of the index were read from the page cache."""

    round: int
    index: str
    start_s: float
    read_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the server's processes held after the load of a round, pages that several share counted once (PSS; proc(5)).

    `own_bytes` are in no file, `mapped_bytes` are pages of files (the index among them), `shared_memory_bytes` are Triton's.
    """

    round: int
    index: str
    pss_bytes: int
    own_bytes: int
    mapped_bytes: int
    shared_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A measurement that came to nothing, and stands in no figure."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """All of a run, or what there is of it so far. The first of `indexes` is what the others are compared with.

    `tiny` is an index that is only started with: what is left of a start when there is next to no index.
    """

    date: str
    machine: Machine
    software: str
    questions: str
    command: str
    one_at_a_time: bool
    indexes: tuple[ScaledIndex, ...]
    tiny: ScaledIndex | None = None
    serving: tuple[Serving, ...] = ()
    starts: tuple[Start, ...] = ()
    memory: tuple[Memory, ...] = ()
    failures: tuple[Failure, ...] = ()

    def with_sample(self, sample: Serving | Start | Memory | Failure) -> "Scale":
        """With one more."""
        match sample:
            case Serving():
                return replace(self, serving=(*self.serving, sample))
            case Start():
                return replace(self, starts=(*self.starts, sample))
            case Memory():
                return replace(self, memory=(*self.memory, sample))
            case Failure():
                return replace(self, failures=(*self.failures, sample))

    @property
    def clients(self) -> list[int]:
        """The numbers of clients that something was measured at, in order."""
        return sorted({sample.clients for sample in self.serving})

    def served(self, index: str, clients: int, figure: Callable[[Serving], float]) -> Spread | None:
        """One figure over the rounds; None where there is no sample."""
        return _spread(figure(one) for one in self.serving if (one.index, one.clients) == (index, clients))

    def ratio(self, index: str, clients: int) -> Spread | None:
        """Questions/s for one of the first index's in the same round."""
        first = {one.round: one.questions_per_s for one in self._of(self.indexes[0].name, clients)}
        return _spread(one.questions_per_s / first[one.round] for one in self._of(index, clients) if one.round in first)

    def started(self, index: str, figure: Callable[[Start], float]) -> Spread | None:
        """One figure over the starts with this index."""
        return _spread(figure(one) for one in self.starts if one.index == index)

    def added_s(self, index: str) -> Spread | None:
        """How much longer a start takes than that with the tiny index in the same round."""
        tiny = self._tiny_starts()
        return _spread(one.start_s - tiny[one.round] for one in self.starts if one.index == index and one.round in tiny)

    def added_ratio(self, index: str) -> Spread | None:
        """What the index adds to a start, for one reading of its bytes in the same round."""
        tiny = self._tiny_starts()
        return _spread(
            (one.start_s - tiny[one.round]) / one.read_s
            for one in self.starts
            if one.index == index and one.round in tiny
        )

    def last_memory(self, index: str) -> Memory | None:
        """What was held after the last round."""
        found = [one for one in self.memory if one.index == index]
        return max(found, key=lambda one: one.round, default=None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def _tiny_starts(self) -> dict[int, float]:
        """Seconds by round."""
        return {one.round: one.start_s for one in self.starts if self.tiny and one.index == self.tiny.name}

    def _of(self, index: str, clients: int) -> list[Serving]:
        return [one for one in self.serving if (one.index, one.clients) == (index, clients)]


def _spread(values: Iterator[float]) -> Spread | None:
    found = list(values)
    return Spread.of(found) if found else None
