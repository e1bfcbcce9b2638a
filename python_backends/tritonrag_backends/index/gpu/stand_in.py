"""FAISS on the CPU in a GPU's place: the same indexes behind the same interface, for machines that have no GPU."""

import weakref
from contextlib import nullcontext
from typing import Any, Final

import numpy as np

from tritonrag_backends.index.ann import Bitmap, Float32Array, VectorSource
from tritonrag_backends.index.gpu.device import Abilities, Scored, Shape
from tritonrag_backends.index.gpu.filling import FaissIndex, faiss, fill, selector_parameters
from tritonrag_backends.index.gpu.shapes import index_bytes

_BITS: Final = 8
_GRAPH_NEIGHBOURS: Final = 32


class CpuDevice:
    """A pretended GPU with so much memory; indexes on it are counted as they would be there."""

    def __init__(self, name: str, *, bytes_in_all: int = 2**40, abilities: Abilities | None = None) -> None:
        self.name: Final = name
        self.abilities: Final = abilities or Abilities(cagra=True, filters=True, most=2_048)
        self._bytes_in_all = bytes_in_all
        self._held: weakref.WeakSet[CpuIndex] = weakref.WeakSet()

    @property
    def held_bytes(self) -> int:
        """What the indexes on it take."""
        return sum(index.bytes for index in list(self._held))

    def free_bytes(self) -> int:
        """What is left."""
        return self._bytes_in_all - self.held_bytes

    def begin(self) -> "CpuDevice":
        """Itself: there is no work space to be kept."""
        return self

    def extra_bytes(self, shape: Shape) -> int:  # noqa: ARG002 - as Builder has it
        """Nothing."""
        return 0

    def build(self, shape: Shape, vectors: VectorSource) -> "CpuIndex":
        """An index over all of `vectors`."""
        index = CpuIndex(shape, vectors)
        self._held.add(index)
        return index


class CpuIndex:
    """An index in the machine's own memory. Safe for many threads."""

    def __init__(self, shape: Shape, vectors: VectorSource) -> None:
        self.bytes = index_bytes(shape)
        self._shape = shape
        self._index: FaissIndex = _make(shape)
        fill(self._index, shape, vectors, lock=nullcontext())

    def search(self, queries: Float32Array, count: int, *, effort: int, allowed: Bitmap | None) -> Scored:
        """As `DeviceIndex.search`."""
        scores, rows = self._index.search(queries, count, params=self._parameters(effort, allowed))
        return np.asarray(scores), np.asarray(rows)

    def close(self) -> None:
        """Give its memory back."""
        self._index, self.bytes = None, 0

    def _parameters(self, effort: int, allowed: Bitmap | None) -> Any:  # noqa: ANN401 - FAISS's classes
        if self._shape.kind == "cagra":
            return selector_parameters(faiss.SearchParametersHNSW, allowed, efSearch=effort)
        if self._shape.lists:
            return selector_parameters(faiss.SearchParametersIVF, allowed, nprobe=effort)
        return selector_parameters(faiss.SearchParameters, allowed)


def _make(shape: Shape) -> FaissIndex:
    dims, metric = shape.dims, faiss.METRIC_INNER_PRODUCT
    half = faiss.ScalarQuantizer.QT_fp16
    if shape.kind == "flat":
        return faiss.IndexScalarQuantizer(dims, half, metric) if shape.fp16 else faiss.IndexFlatIP(dims)
    if shape.kind == "cagra":
        return faiss.IndexHNSWFlat(dims, _GRAPH_NEIGHBOURS, metric)
    quantizer = faiss.IndexFlatIP(dims)
    if shape.kind == "ivf_pq":
        index = faiss.IndexIVFPQ(quantizer, dims, shape.lists, shape.sub_quantizers, _BITS, metric)
        index.pq.cp.min_points_per_centroid = 1  # fewer make FAISS complain on stderr
    elif shape.fp16:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dims, shape.lists, half, metric, False)
    else:
        index = faiss.IndexIVFFlat(quantizer, dims, shape.lists, metric)
    return index
