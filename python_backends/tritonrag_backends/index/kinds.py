"""The kinds of segment: which to choose, how to build them, how hard to search them."""

from pathlib import Path
from typing import Any, Final, Literal

import faiss
import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.format import Kind, OperatingPoint
from tritonrag_client.errors import InternalError

KindChoice = Literal["auto", "flat", "hnsw"]

# Per core, 384 dimensions, k 10, synthetic clusters: at 20k rows flat answers 700/s alone and 3,100/s in batches of 32 where
# the graph answers 9,000/s at recall 0.97; at 10k 3,800 and 6,900 against 12,700 at 0.91. Below, exact is fast enough.
FLAT_UP_TO: Final = 20_000
GRAPH: Final = "HNSW16_SQ8"
_EF_CONSTRUCTION = 100
_EF_SEARCH = 64
# The graph's own order is by 8-bit vectors: at 100k rows recall@10 stops at 0.982 whatever the effort. Four candidates a passage,
# re-scored exactly, make it 0.9999 at effort 64 (synthetic clusters).
_RESCORE = 4
# FAISS goes from its own kernel to BLAS when queries x dimensions reach a threshold. BLAS over its own kernel, 384 dimensions, one
# thread: batch 1 0.1 times (10k rows), batch 4 0.5 to 0.9, batch 8 1.3 / 0.7 / 1.4 (1k / 10k / 20k rows), batch 16 1.4 to 2.4,
# batch 32 2.1 to 3.5.
BLAS_FROM_QUERIES: Final = 8
_ADD_ROWS = 8_192


def choose(kind: KindChoice, rows: int) -> Kind:
    """The kind of a segment with that many rows; `auto` goes by size."""
    if kind == "auto":
        return "flat" if rows <= FLAT_UP_TO else "hnsw"
    return kind


def operating_point(kind: Kind) -> OperatingPoint:
    """How to search it. Fixed for now; recall is None, which says that nobody measured it on these vectors."""
    if kind == "flat":
        return OperatingPoint(kind=kind, ef_search=0, rescore=0, recall_at_10=1.0)
    return OperatingPoint(kind=kind, ef_search=_EF_SEARCH, rescore=_RESCORE)


def use_blas_when_faster(dim: int) -> None:
    """Set FAISS's switch to BLAS, a value of the whole process, for vectors of this dimension."""
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES * dim


def write_graph(vectors: npt.NDArray[np.float32], path: Path) -> None:
    """Build the graph over FP32 [rows, dim] and write it. Uses all threads that FAISS is allowed; holds one byte a value."""
    graph: Any = faiss.index_factory(vectors.shape[1], GRAPH, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _EF_CONSTRUCTION
    graph.train(_sample(vectors))
    for start in range(0, len(vectors), _ADD_ROWS):
        graph.add(np.ascontiguousarray(vectors[start : start + _ADD_ROWS]))
    faiss.write_index(graph, str(path))


def read_graph(path: Path, *, rows: int, dim: int) -> Any:  # noqa: ANN401 - FAISS ships no usable types
    """Map a verified graph into memory: several processes share its pages, and loading reads only what is searched.

    Raises InternalError where the file is no graph of ours or not over `rows` vectors of `dim` values.
    """
    # A file can't make FAISS allocate more than a few times its own size, nor loop for longer than its bytes could mean.
    size = path.stat().st_size
    faiss.set_deserialization_vector_byte_limit(4 * size)
    faiss.set_deserialization_loop_limit(size)
    try:
        # IO_FLAG_MMAP copies these kinds, IO_FLAG_MMAP_IFC maps them: at 100k rows 1 MB of own memory instead of 51, and
        # 6 ms instead of 66.
        graph = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InternalError(
            f"{path.name} is no FAISS index: build the index again with `tritonrag index build`"
        ) from error
    if not isinstance(graph, faiss.IndexHNSWSQ) or (graph.ntotal, graph.d) != (rows, dim):
        raise InternalError(
            f"{path.name} is a {type(graph).__name__} over {graph.ntotal} vectors of {graph.d} values where the manifest says "
            f"{rows} of {dim}; build the index again with `tritonrag index build`"
        )
    return graph


def _sample(vectors: npt.NDArray[np.float32], most: int = 50_000) -> npt.NDArray[np.float32]:
    """Rows spread evenly over all of them: enough to learn each dimension's range."""
    step = max(1, len(vectors) // most)
    return np.ascontiguousarray(vectors[::step])
