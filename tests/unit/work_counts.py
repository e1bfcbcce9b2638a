"""Counters of work: what an encoder computes, what a search reads and compares, what memory a call takes at its peak."""

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.index import Index
from tritonrag_backends.index.format import OperatingPoint
from tritonrag_backends.index.segment import Segment
from tritonrag_backends.index.vectors import StoredVectors

T = TypeVar("T")


@dataclass
class CountingSession:
    """Stands in for an ONNX Runtime session; `places` are the token places, filled or not, of each call."""

    dim: int
    places: list[int] = field(default_factory=list)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == ["embedding"]
        self.places.append(inputs["input_ids"].size)
        return [np.ones((len(inputs["text_index"]), self.dim), np.float32)]


def counting_encoder(encoder: Encoder) -> tuple[Encoder, CountingSession]:
    """The same tokenizer and packing over a session that computes nothing and counts."""
    session = CountingSession(encoder.dim)
    counted = Encoder(
        manifest=encoder._manifest,
        precision=encoder.precision,
        tokenizer=encoder._tokenizer,
        session=session,
    )
    return counted, session


class CountingVectors(StoredVectors):
    """Stored vectors that count the rows read: in a `block`, one after the other, and `taken` by their numbers."""

    def __init__(self, inner: StoredVectors) -> None:
        super().__init__(inner._vectors, inner._scales)
        self.in_blocks = self.taken = 0

    def block(self, start: int, stop: int) -> np.ndarray:
        self.in_blocks += stop - start
        return super().block(start, stop)

    def stored(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        self.taken += len(rows)
        return super().stored(rows)


class WatchedSegment(Segment):
    """A segment that keeps the arrays of questions it was searched with."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.searched: list[np.ndarray] = []

    def search(self, queries: np.ndarray, *args: Any, **options: Any) -> Any:
        self.searched.append(queries)
        return super().search(queries, *args, **options)


@dataclass(frozen=True)
class Work:
    """`read`: vectors read in blocks, `taken`: vectors taken by number, both for all questions together; `compared` and `lists`:
    distances that FAISS computed in graphs and lists, and the lists that it visited, added up over questions.
    """

    read: int
    taken: int
    compared: int
    lists: int


@dataclass(frozen=True)
class CountedIndex:
    """An index that tells what a search of it did."""

    index: Index
    vectors: tuple[CountingVectors, ...]

    @classmethod
    def open(cls, directory: Path, point: OperatingPoint | None = None) -> "CountedIndex":
        """`point` is how to search it; None: as it was tuned, which goes by time and may differ from build to build."""
        index = Index.open(directory, fingerprint=None)
        vectors = tuple(CountingVectors(segment.files.vectors) for segment in index.segments)
        segments = [
            WatchedSegment(
                replace(segment.files, vectors=counting),
                replace(segment.record, point=point or segment.record.point),
                segment.alive,
            )
            for segment, counting in zip(index.segments, vectors, strict=True)
        ]
        return cls(Index(manifest=index.manifest, segments=segments, space=index._space), vectors)

    def work_of(self, call: Callable[[], object]) -> Work:
        """What this call did."""
        graph, lists = faiss.cvar.hnsw_stats, faiss.cvar.indexIVF_stats
        graph.reset()
        lists.reset()
        read, taken = self._rows()
        call()
        read_after, taken_after = self._rows()
        return Work(
            read=read_after - read,
            taken=taken_after - taken,
            compared=graph.ndis + lists.ndis,
            lists=lists.nlist,
        )

    def _rows(self) -> tuple[int, int]:
        return sum(one.in_blocks for one in self.vectors), sum(one.taken for one in self.vectors)


def peak_of(call: Callable[[], T]) -> tuple[T, int]:
    """The result of a call, and the most bytes that it had allocated at one time."""
    call()  # what is made once and kept is no part of it
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
