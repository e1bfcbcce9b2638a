"""Vectors into a FAISS index, the same way whichever device it is on."""

from contextlib import AbstractContextManager
from typing import Any, Final

import faiss as typed_faiss

from tritonrag_backends.index.ann import VectorSource, faiss_threads, training_sample
from tritonrag_backends.index.gpu.device import Shape

faiss: Any = typed_faiss  # as in ann.py
FaissIndex = Any

_ADDED_ROWS: Final = 65_536  # 100 MB at 384 dimensions


def fill(index: FaissIndex, shape: Shape, vectors: VectorSource, *, lock: AbstractContextManager[Any]) -> None:
    """Train `index` on a sample and add all vectors, holding `lock` for each call of FAISS.

    A flat index and a graph are handed over in one piece, which takes 4 bytes a value of host memory: in pieces, FAISS's flat index
    on a GPU would move to a larger place with each, holding both, and a graph is built once.
    """
    if shape.lists:
        sample = training_sample(vectors, shape.lists)
        index.cp.min_points_per_centroid = 1  # fewer make FAISS complain on stderr
        with lock, faiss_threads(1) if shape.sub_quantizers else faiss_threads(faiss.omp_get_max_threads()):
            index.train(sample)
    step = _ADDED_ROWS if shape.lists else max(shape.rows, 1)
    for start in range(0, shape.rows, step):
        block = vectors.block(start, min(start + step, shape.rows))
        with lock:
            index.add(block)


def selector_parameters(make: Any, allowed: Any, **options: Any) -> Any:  # noqa: ANN401 - FAISS's classes
    """FAISS's search parameters of class `make` with an IDSelectorBitmap; they keep it alive, and it the bitmap."""
    if allowed is not None:
        options["sel"] = faiss.IDSelectorBitmap(allowed)
    return make(**options)
