"""One segment, opened for reading: verified, mapped into memory, searched."""

import hashlib
import mmap
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.format import (
    ADVICE,
    GRAPH_FILE,
    OFFSETS_FILE,
    PASSAGES_FILE,
    ROW_BITS,
    SEGMENTS,
    VECTORS_FILE,
    OperatingPoint,
    SegmentRecord,
)
from tritonrag_backends.index.kinds import read_graph
from tritonrag_client.errors import InternalError

Candidates = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]

# More candidates than are wanted, because FAISS's scores differ in their last bits from batch to batch (BLAS or not) and those of
# two near passages may swap: re-scored, the same question has the same answer alone and in any batch.
_MARGIN = 8
_DOUBLINGS = 3
_NEAR = 1e-5


class Segment:
    """The files of one segment, mapped: processes on one machine share the pages. Read-only and safe for many threads."""

    def __init__(
        self,
        *,
        record: SegmentRecord,
        vectors: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        passages: mmap.mmap,
        graph: Any,  # noqa: ANN401 - FAISS ships no usable types
    ) -> None:
        self.number = record.number
        self.rows = record.rows
        self._vectors = vectors
        self._offsets = offsets
        self._passages = passages
        self._graph = graph

    @classmethod
    def open(cls, directory: Path, record: SegmentRecord, *, dim: int, verify: bool) -> "Segment":
        """Open `directory/segments/<id>`; every file is checked before anything else reads it.

        `verify` false leaves the sha256 out and checks sizes and shapes alone. Raises InternalError that names the file.
        """
        folder = directory / SEGMENTS / record.id
        for name, expected in sorted(record.files.items()):
            _check_file(folder / name, expected.bytes, expected.sha256 if verify else None)
        vectors = _map_array(folder / VECTORS_FILE, np.dtype(np.float32), (record.rows, dim))
        offsets = _map_array(folder / OFFSETS_FILE, np.dtype(np.int64), (record.rows + 1,))
        with (folder / PASSAGES_FILE).open("rb") as file:
            passages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if offsets[0] != 0 or offsets[-1] != len(passages) or bool(np.any(np.diff(offsets) <= 0)):
            raise _damaged(
                folder / OFFSETS_FILE, f"its offsets do not rise from 0 to the {len(passages)} bytes of passages"
            )
        graph = read_graph(folder / GRAPH_FILE, rows=record.rows, dim=dim) if record.kind == "hnsw" else None
        return cls(record=record, vectors=vectors, offsets=offsets, passages=passages, graph=graph)

    def search(self, queries: npt.NDArray[np.float32], k: int, point: OperatingPoint) -> Candidates:
        """The k best rows for each of FP32 [n, dim]: ids INT64 [n, k], exact scores FP32 [n, k], by score, then by id.

        k is at most `rows`. Where a graph found fewer than k, the tail has id -1 and score -inf.
        """
        wanted = max(k + _MARGIN, k * point.rescore)
        for _ in range(_DOUBLINGS + 1):
            wanted = min(wanted, self.rows)
            rows, scores = self._rescored(queries, self._find(queries, wanted, point))
            if wanted == self.rows or not _tied_at_the_cut(scores, k):
                break
            wanted *= 2
        ids = np.where(rows < 0, np.int64(-1), (np.int64(self.number) << ROW_BITS) | rows)
        return ids[:, :k], scores[:, :k]

    def passage(self, row: int) -> bytes:
        """The wire JSON of a passage, as it lies on the disk."""
        return self._passages[int(self._offsets[row]) : int(self._offsets[row + 1])]

    def _find(self, queries: npt.NDArray[np.float32], wanted: int, point: OperatingPoint) -> npt.NDArray[np.int64]:
        if self._graph is None:
            return np.asarray(faiss.knn(queries, self._vectors, wanted, metric=faiss.METRIC_INNER_PRODUCT)[1])
        effort = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]  # missing in FAISS's stubs
            efSearch=max(point.ef_search, wanted)
        )
        return np.asarray(self._graph.search(queries, wanted, params=effort)[1])

    def _rescored(self, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> Candidates:
        """Candidates [n, c] by their exact scores; einsum adds in one order whatever the batch, so they are the same to the bit."""
        scores = np.einsum("nd,ncd->nc", queries, self._vectors[rows])
        scores[rows < 0] = -np.inf
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _tied_at_the_cut(scores: npt.NDArray[np.float32], k: int) -> bool:
    """Whether a row that was not even a candidate could score as much as the k-th: then it might have the lower id."""
    return bool(np.any(scores[:, -1] > scores[:, k - 1] - _NEAR))


def _check_file(path: Path, size: int, sha256: str | None) -> None:
    try:
        with path.open("rb") as file:
            found = file.seek(0, 2)
            if found != size:
                raise _damaged(path, f"it has {found} bytes where the manifest says {size}")
            file.seek(0)
            if sha256 is not None and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise _damaged(path, "its sha256 is not the manifest's")
    except OSError as error:
        raise _damaged(path, f"it can't be read ({error.strerror})") from error


def _map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(path, "it is no .npy file") from error
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise _damaged(path, f"it holds {array.dtype} {array.shape} where the manifest says {dtype} {shape}")
    return np.asarray(array)


def _damaged(path: Path, why: str) -> InternalError:
    return InternalError(f"the index file {SEGMENTS}/{path.parent.name}/{path.name} is damaged: {why}; {ADVICE}")
