"""A segment's FAISS file: built from the stored vectors, mapped into memory, searched for candidates to be re-scored."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.format import ADVICE
from tritonrag_backends.index.kinds import faiss_name, lists, probes_for_share
from tritonrag_client.errors import InternalError

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Bitmap = npt.NDArray[np.uint8]

faiss: Any = typed_faiss  # FAISS's stubs lack half of what is used here, and do not tell the kinds apart

_CLASSES: Final[dict[Kind, str]] = {
    "sq8": "IndexScalarQuantizer",
    "hnsw": "IndexHNSWSQ",
    "ivf_flat": "IndexIVFFlat",
    "ivf_sq8": "IndexIVFScalarQuantizer",
    "ivf_pq": "IndexIVFPQFastScan",
    "ivf_rabitq": "IndexIVFRaBitQ",
}
# Recall@10 of the graph over 100k real embeddings at efSearch 64: 0.943 with 100, 0.960 to 0.967 with 200, which takes 1.6 times as
# long to build.
_EF_CONSTRUCTION: Final = 200
_ROUND_ROWS: Final = 32_768  # given to FAISS at a time: 50 MB at 384 dimensions
# Ranges of values and centroids are learned from as many rows, spread evenly over the segment.
_SAMPLE_ROWS: Final = 65_536
_SAMPLE_ROWS_A_LIST: Final = 64
_SAMPLE_BYTES: Final = 256 * 2**20
_LEAST_SAMPLE_ROWS: Final = 16  # FAISS trains no 4-bit quantizer with fewer
_WRITE_BYTES: Final = 2**20

# The lists that are searched hold this many allowed rows a candidate.
_ROWS_A_CANDIDATE: Final = 4
# A graph with a filter is searched until a third of the effort is allowed rows: first with the effort / share ** 0.75, then ever
# wider, until comparing with each allowed row is cheaper (100k rows: 2.5 us an efSearch, 0.1 us a row). Recall@10, 0.964 without a
# filter, was 0.96 to 0.99 at shares of 0.9 to 0.1, spread at random, over clusters or over documents.
_ENOUGH: Final = 0.34
_FIRST_WIDTH: Final = 0.75
_WIDENING: Final = 3
_ROWS_AN_EFFORT: Final = 25

_reading_limits = Lock()


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let FAISS use that many threads for what the calling thread asks of it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class VectorSource(Protocol):
    """The stored vectors of a segment."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def dims(self) -> int:
        """Values of each."""

    def block(self, start: int, stop: int) -> Float32Array:
        """Rows `start` to `stop` as FP32 [stop - start, dims], C-contiguous."""

    def take(self, rows: Int64Array) -> Float32Array:
        """These rows as FP32 [n, dims]."""


def build_ann(kind: Kind, vectors: VectorSource, path: Path, *, progress: Callable[[int], None] | None = None) -> None:
    """Build the FAISS file of a segment; `progress` is told how many rows are added.

    Uses all threads that FAISS is allowed; however many these are, the same vectors make the same file. Memory: what the file
    holds, twice as much at times, and before that up to 0.7 GB of vectors to learn from. Raises OSError where it can't be written.
    """
    name = faiss_name(kind, rows=vectors.rows, dims=vectors.dims)
    index: Any = faiss.index_factory(vectors.dims, name, faiss.METRIC_INNER_PRODUCT)
    _train(index, kind, vectors)
    for rows in _rounds(kind, vectors.rows):
        index.add(vectors.block(rows.start, rows.stop) if rows.step == 1 else vectors.take(np.asarray(rows)))
        if progress is not None:
            progress(index.ntotal)
    if kind == "hnsw":
        _restore_order(index)
    with path.open("wb") as file:  # not by its name: FAISS would make a RuntimeError of a full disk
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES))


class Ann:
    """A FAISS file, mapped where the kind allows it; read-only and safe for many threads."""

    def __init__(self, index: Any, *, kind: Kind) -> None:  # noqa: ANN401 - as above
        self._index = index
        self._kind: Kind = kind

    @classmethod
    def open(cls, path: Path, *, kind: Kind, rows: int, dims: int) -> "Ann":
        """Map a file whose sha256 was checked. Raises InternalError where it is not of this kind, or not over `rows` x `dims`."""
        index = _read(path)
        found = f"{type(index).__name__} over {index.ntotal} vectors of {index.d} values"
        if found != f"{_CLASSES[kind]} over {rows} vectors of {dims} values":
            raise InternalError(
                f"the index file {path.name} is a {found} where the manifest says {kind} over {rows} of {dims}; {ADVICE}"
            )
        return cls(index, kind=kind)

    def find(self, queries: Float32Array, *, candidates: int, effort: int, allowed: Bitmap | None = None) -> Int64Array:
        """Rows near each of FP32 [n, dims], INT64 [n, candidates] in no order; -1 where fewer were found.

        `effort` is efSearch or nprobe; it is raised where it is too little for so many candidates. `allowed` is UINT8 [rows / 8,
        rounded up], little endian: only rows whose bit is set are found, with the recall that the effort has without a filter. A
        graph finds none at all for a query for which that would take longer than comparing it with each allowed row.
        """
        count = self._index.ntotal if allowed is None else count_set(allowed)
        if count <= candidates:
            return _everything(len(queries), candidates, self._index.ntotal, allowed)
        if self._kind != "hnsw":
            return self._scan(queries, candidates, effort, allowed, share=count / self._index.ntotal)
        effort = min(max(effort, candidates, 1), self._index.ntotal)
        if allowed is None:
            return self._walk(queries, candidates, effort)
        return self._widen(queries, candidates, effort, allowed, count)

    def _scan(
        self, queries: Float32Array, wanted: int, effort: int, allowed: Bitmap | None, *, share: float
    ) -> Int64Array:
        # The parameters keep the selector alive, and the selector the bitmap.
        selector = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(allowed)}
        if self._kind == "sq8":
            parameters = faiss.SearchParameters(**selector)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=self._probes(wanted, effort, share), **selector)
        return np.asarray(self._index.search(queries, wanted, params=parameters)[1])

    def _probes(self, wanted: int, effort: int, share: float) -> int:
        """How many lists hold as good candidates as `effort` lists do when all rows are allowed, and enough of them."""
        rows_a_list: float = self._index.ntotal * share / self._index.nlist
        probes = max(effort * probes_for_share(share), _ROWS_A_CANDIDATE * wanted / rows_a_list)
        return max(1, min(math.ceil(probes), int(self._index.nlist)))

    def _walk(self, queries: Float32Array, wanted: int, effort: int) -> Int64Array:
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        return np.asarray(self._index.search(queries, wanted, params=parameters)[1])

    def _widen(self, queries: Float32Array, wanted: int, effort: int, allowed: Bitmap, count: int) -> Int64Array:
        """Search the graph ever wider until enough of what was found is allowed.

        How wide that is depends on how common allowed rows are near the query, not on their share of the whole: with FAISS's own
        filter and the effort divided by the share, recall fell from 0.96 to 0.75 where half of the documents were allowed.
        """
        rows = self._index.ntotal
        found = np.full((len(queries), wanted), -1, np.int64)
        enough = max(wanted, round(effort * _ENOUGH))
        widest = min(max(effort, count // _ROWS_AN_EFFORT), rows)
        width = min(math.ceil(effort * (rows / count) ** _FIRST_WIDTH), widest)
        pending = np.arange(len(queries))
        while len(pending):
            near = self._walk(queries[pending], width, width)
            passing = are_set(allowed, near)
            done = (np.count_nonzero(passing, axis=1) >= enough) | (width == rows)
            found[pending[done]] = _first(near[done], passing[done], wanted)
            pending = pending[~done]
            if width == widest:
                break
            width = min(_WIDENING * width, widest)
        return found


def _rounds(kind: Kind, rows: int) -> Iterator[range]:
    """The rows in the order in which they are added.

    A graph gets every n-th row in turn: passages of one document are alike, and a graph that sees one document after the other is
    worse (recall@10 at efSearch 64, 100k rows in 13 rounds: 0.913 in order, 0.948 in turn).
    """
    if kind == "hnsw":
        step = -(-rows // _ROUND_ROWS)
        yield from (range(first, rows, step) for first in range(step))
    else:
        yield from (range(first, min(first + _ROUND_ROWS, rows)) for first in range(0, rows, _ROUND_ROWS))


def _restore_order(graph: Any) -> None:  # noqa: ANN401 - as above
    """Give each vector of a graph the number of its row, which is not the order in which it was added."""
    added = np.concatenate([np.asarray(rows) for rows in _rounds("hnsw", graph.ntotal)])
    graph.permute_entries(np.argsort(added))


def _train(index: Any, kind: Kind, vectors: VectorSource) -> None:  # noqa: ANN401 - as above
    if kind == "hnsw":
        index.hnsw.efConstruction = _EF_CONSTRUCTION
    if kind == "ivf_pq":
        index.pq.cp.min_points_per_centroid = 1  # fewer make FAISS complain on stderr
    sample = training_sample(vectors, lists(vectors.rows) if kind.startswith("ivf_") else 0)
    if kind.startswith("ivf_"):
        index.cp.min_points_per_centroid = 1
        index.train_q1(len(sample), faiss.swig_ptr(sample), False, index.metric_type)  # the lists' centroids
    # The rest is many small steps for which threads wait for each other: 192 sub-quantizers take 1 s alone, 28 s on 2 busy cores.
    with faiss_threads(1):
        index.train(sample)


def training_sample(vectors: VectorSource, list_count: int) -> Float32Array:
    """What to learn `list_count` centroids and quantizers from: FP32 [n, dims], n at least 16, rows spread evenly."""
    most = min(
        max(_SAMPLE_ROWS, _SAMPLE_ROWS_A_LIST * list_count), max(1, _SAMPLE_BYTES // (4 * vectors.dims)), vectors.rows
    )
    sample = vectors.take(np.linspace(0, vectors.rows - 1, most).astype(np.int64))
    # The same rows again where there are too few.
    return np.ascontiguousarray(
        sample if most >= _LEAST_SAMPLE_ROWS else np.resize(sample, (_LEAST_SAMPLE_ROWS, vectors.dims))
    )


def _read(path: Path) -> Any:  # noqa: ANN401 - as above
    # A file can't make FAISS allocate more than a few times its own size, nor loop for longer than its bytes could mean. The limits
    # are the whole process's, so that two threads must not read at once.
    size = path.stat().st_size
    with _reading_limits:
        faiss.set_deserialization_vector_byte_limit(4 * size)
        faiss.set_deserialization_loop_limit(size)
        try:
            # IO_FLAG_MMAP copies these kinds, IO_FLAG_MMAP_IFC maps all but ivf_pq: a graph over 100k rows takes 1 MB of own memory
            # instead of 51, and 6 ms instead of 66.
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise InternalError(f"the index file {path.name} is no FAISS index; {ADVICE}") from error


def _everything(queries: int, candidates: int, rows: int, allowed: Bitmap | None) -> Int64Array:
    """All rows, or all that are allowed, for each query; no more than there are candidates."""
    every = (
        np.arange(rows) if allowed is None else np.flatnonzero(np.unpackbits(allowed, count=rows, bitorder="little"))
    )
    return np.tile(np.pad(every, (0, candidates - len(every)), constant_values=-1), (queries, 1))


def are_set(bitmap: Bitmap, rows: Int64Array) -> npt.NDArray[np.bool_]:
    """Whether the bit of each row is set; that of row -1 is not."""
    bits = bitmap[rows >> 3] >> (rows & 7).astype(np.uint8) & 1
    return np.asarray((bits == 1) & (rows >= 0), np.bool_)


def _first(rows: Int64Array, passing: npt.NDArray[np.bool_], wanted: int) -> Int64Array:
    """The first rows [n, wanted] that pass; -1 where fewer do."""
    order = np.argsort(~passing, axis=1, kind="stable")[:, :wanted]
    return np.where(np.take_along_axis(passing, order, axis=1), np.take_along_axis(rows, order, axis=1), -1)


def count_set(bitmap: Bitmap) -> int:
    """How many bits are set; NumPy below 2 can't count them."""
    return int.from_bytes(bitmap.tobytes(), "little").bit_count()
