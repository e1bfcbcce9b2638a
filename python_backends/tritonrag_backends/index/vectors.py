"""Stored vectors: how they lie on the disk (FP32, FP16 or INT8, whole or shortened), exact scores and exact search over them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.choices import VectorType
from tritonrag_backends.index.arrays import map_array
from tritonrag_backends.index.format import SCALES_FILE, VECTORS_FILE, VectorRecord
from tritonrag_backends.index.kinds import BLAS_FROM_QUERIES

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

DTYPES: Final[dict[VectorType, np.dtype[Any]]] = {
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
# Rows that are decoded at a time: 25 MB at 384 dimensions.
BLOCK_ROWS: Final = 16_384
# Below this share of allowed rows, copying them out is cheaper for a single question than skipping the others.
_SKIP_FROM_SHARE: Final = 0.25
_INT8_MOST: Final = 127
_CACHED_BYTES: Final = 2**20  # of vectors, in a core's own cache


class StoredVectors:
    """The vectors of one segment, mapped; read-only and safe for many threads."""

    def __init__(self, vectors: npt.NDArray[Any], scales: Float32Array | None) -> None:
        self._vectors, self._scales = vectors, scales

    @classmethod
    def open(cls, folder: Path, record: VectorRecord, rows: int) -> "StoredVectors":
        """Map the files. Raises InternalError where they do not hold what the manifest says."""
        vectors = map_array(folder / VECTORS_FILE, DTYPES[record.type], (rows, record.dims))
        scales = map_array(folder / SCALES_FILE, np.dtype("<f4"), (rows,)) if record.type == "int8" else None
        return cls(vectors, scales)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._vectors)

    @property
    def dims(self) -> int:
        """Values of each."""
        return int(self._vectors.shape[1])

    def block(self, start: int, stop: int) -> Float32Array:
        """Rows `start` to `stop` as FP32 [stop - start, dims], C-contiguous."""
        return self._decoded(self._vectors[start:stop], None if self._scales is None else self._scales[start:stop])

    def take(self, rows: Int64Array) -> Float32Array:
        """These rows as FP32 [n, dims]."""
        return self._decoded(*self.stored(rows))

    def stored(self, rows: Int64Array) -> tuple[npt.NDArray[Any], Float32Array | None]:
        """These rows as they are stored, with their scales FP32 [n] where they are INT8."""
        return self._vectors[rows], None if self._scales is None else self._scales[rows]

    def scores(self, queries: Float32Array, rows: Int64Array) -> Float32Array:
        """Inner products FP32 [n, c] of FP32 [n, dims] with rows INT64 [n, c]; -inf for row -1.

        einsum adds in one order whatever the batch, so that a question scores the same to the bit alone and in any company.
        """
        found = np.empty(rows.shape, np.float32)
        for i, query in enumerate(queries):  # a query at a time: the gathered vectors stay in the cache
            found[i] = np.einsum("d,cd->c", query, self.take(rows[i]))
        found[rows < 0] = -np.inf
        return found

    def nearest(self, queries: Float32Array, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> Int64Array:
        """The k best of the allowed rows (None: all) for each query, INT64 [n, k], in no order; -1 where fewer are allowed.

        Exact but for the last bits of FAISS's sums: ask for a few more than are wanted and score them with `scores`.
        """
        if allowed is None and k <= self.rows <= self._block_rows:
            few = 1 < len(queries) < BLAS_FROM_QUERIES
            vectors = self.block(0, self.rows)
            return _search_few(queries, vectors, k) if few else _search_block(queries, vectors, k, None)[1]
        best = _Best(len(queries), k)
        for rows, vectors, mask in self._blocks(allowed, together=len(queries) >= BLAS_FROM_QUERIES):
            scores, found = _search_block(queries, vectors, min(k, len(vectors)), mask)
            best.add(scores, np.where(found >= 0, found + rows if isinstance(rows, int) else rows[found], -1))
        return best.rows

    def _blocks(
        self, allowed: npt.NDArray[np.bool_] | None, *, together: bool
    ) -> Iterator[tuple[int | Int64Array, Float32Array, npt.NDArray[np.bool_] | None]]:
        """Pieces to search: (first row, or the rows), their vectors, and which of them count where some do not.

        FAISS can skip rows, but not by BLAS, which pays off for questions that are searched `together`.
        """
        if allowed is None or (not together and int(np.count_nonzero(allowed)) > _SKIP_FROM_SHARE * self.rows):
            step = self._block_rows
            for start in range(0, self.rows, max(step, 1)):
                mask = None if allowed is None else allowed[start : start + step]
                yield start, self.block(start, min(start + step, self.rows)), mask
            return
        rows = np.flatnonzero(allowed)
        for start in range(0, len(rows), BLOCK_ROWS):
            part = rows[start : start + BLOCK_ROWS]
            yield part, self.take(part), None

    @property
    def _block_rows(self) -> int:
        """Rows to search at a time: all where they lie as they are searched, else as many as are decoded at a time."""
        return self.rows if self._vectors.dtype == np.float32 else BLOCK_ROWS

    def _decoded(self, stored: npt.NDArray[Any], scales: Float32Array | None) -> Float32Array:
        vectors = np.ascontiguousarray(stored, dtype=np.float32)
        return vectors if scales is None else vectors * scales[:, None]


class _Best:
    """The k best of what was added, for each query."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._scores = np.full((queries, k), -np.inf, np.float32)
        self.rows: Int64Array = np.full((queries, k), -1, np.int64)

    def add(self, scores: Float32Array, rows: Int64Array) -> None:
        """Candidates FP32 [n, c] with their rows INT64 [n, c], -1 for none."""
        every = np.concatenate([self._scores, np.where(rows < 0, -np.inf, scores)], axis=1)
        kept = np.argpartition(-every, self._k - 1, axis=1)[:, : self._k]
        self._scores = np.take_along_axis(every, kept, axis=1)
        self.rows = np.take_along_axis(np.concatenate([self.rows, rows], axis=1), kept, axis=1)


def _search_few(queries: Float32Array, vectors: Float32Array, k: int) -> Int64Array:
    """The k best rows for each of a few queries, which share what a core's own cache holds of the vectors.

    FAISS goes through all vectors for one query after the other: over 10,000 rows of 384 values (a Xeon with 2 MB of cache a core)
    2 queries take 1.16 ms by FAISS and 1.00 so, 4 take 2.32 and 1.58, 7 take 4.0 and 2.5; a single one 0.59 and 0.68.
    """
    scores = np.empty((len(queries), len(vectors)), np.float32)
    step = max(1, _CACHED_BYTES // vectors[:1].nbytes)
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        for query, found in zip(queries, scores[:, start : start + step], strict=True):
            np.dot(block, query, out=found)
    return np.argpartition(scores, len(vectors) - k, axis=1)[:, len(vectors) - k :]


def _search_block(
    queries: Float32Array, vectors: Float32Array, k: int, mask: npt.NDArray[np.bool_] | None
) -> tuple[Float32Array, Int64Array]:
    if mask is None:
        scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        return np.asarray(scores), np.asarray(rows)
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    queries, bits = np.ascontiguousarray(queries), np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]  # FAISS's stubs lack its own wrapper
    faiss.knn_inner_product(
        faiss.swig_ptr(queries), faiss.swig_ptr(vectors), vectors.shape[1], len(queries), len(vectors), k,
        faiss.swig_ptr(scores), faiss.swig_ptr(rows), selector,
    )  # fmt: skip
    rows[rows >= 0] = np.where(mask[rows[rows >= 0]], rows[rows >= 0], -1)  # a filter that is ignored fails closed
    return scores, rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorSpace:
    """From the model's embeddings to stored vectors. `projection` is FP32 [dim, dims] with reduction pca alone."""

    record: VectorRecord
    projection: Float32Array | None = None

    def with_recall(self, recall_at_10: float) -> "VectorSpace":
        """The same with what it was measured to cost."""
        return replace(self, record=replace(self.record, recall_at_10=round(recall_at_10, 4)))

    def reduce(self, embeddings: Float32Array) -> Float32Array:
        """FP32 [n, dim] to FP32 [n, dims] of unit length."""
        if self.record.reduction == "none":
            return embeddings
        if self.projection is None:
            shorter = embeddings[:, : self.record.dims]
        else:
            # einsum, not BLAS: a question's vector must not depend on its batch.
            shorter = np.einsum("nd,de->ne", embeddings, self.projection)
        lengths = np.sqrt(np.einsum("nd,nd->n", shorter, shorter))
        return np.ascontiguousarray(shorter / np.maximum(lengths, np.float32(1e-12))[:, None], dtype=np.float32)

    def reduce_many(self, embeddings: Float32Array) -> Float32Array:
        """As `reduce`, by BLAS: for building, where the last bits do not matter."""
        if self.projection is None:
            return self.reduce(embeddings)
        shorter = embeddings @ self.projection
        return np.asarray(shorter / np.maximum(np.linalg.norm(shorter, axis=1, keepdims=True), 1e-12), np.float32)


def encode_vectors(vectors: Float32Array, to: VectorType) -> tuple[npt.NDArray[Any], Float32Array | None]:
    """FP32 [n, dims] as they are stored, with the scales FP32 [n] of INT8: the largest value of a vector becomes 127."""
    if to != "int8":
        return vectors.astype(DTYPES[to]), None
    scales = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-12)) / np.float32(_INT8_MOST)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def train_pca(sample: Float32Array, dims: int) -> Float32Array:
    """The projection FP32 [dim, dims] that keeps most of the inner products: the leading eigenvectors of the second moments.

    Not centred: cosine similarity has its origin at zero (Jolliffe, Principal Component Analysis, 2002, section 2.3 and 14.2.3).
    """
    moments = sample.T.astype(np.float64) @ sample.astype(np.float64) / max(len(sample), 1)
    _, vectors = np.linalg.eigh(moments)
    return np.ascontiguousarray(vectors[:, ::-1][:, :dims], dtype=np.float32)
