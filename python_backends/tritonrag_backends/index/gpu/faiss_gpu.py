"""A GPU by FAISS: what its build can do, work space, and indexes.

FAISS's GPU indexes are not thread-safe, not even for reads: those with the same StandardGpuResources share its stream and its stack
of temporary memory. So each resources object has a lock, which every call into FAISS holds, building, searching and freeing alike.
What is built quickly shares one resources object for the GPU's whole life, so that many small segments do not each keep temporary
memory. What takes long is built, beside the searches, with one of its own for each version of the index, and keeps it.
"""

import re
from contextlib import suppress
from threading import RLock
from typing import Any, Final

import numpy as np

from tritonrag_backends.index.ann import Bitmap, Float32Array, VectorSource
from tritonrag_backends.index.gpu.cuda import free_bytes
from tritonrag_backends.index.gpu.device import DEVICE_FAILURES, Abilities, DeviceKind, Scored, Shape
from tritonrag_backends.index.gpu.filling import FaissIndex, faiss, fill, selector_parameters
from tritonrag_backends.index.gpu.shapes import CAGRA_BUILD_DEGREE, CAGRA_DEGREE

_FILTERS_SINCE: Final = (1, 14, 2)
_MOST: Final = 2_048
_MOST_CUVS: Final = 16_384
_CUVS: Final = "NVIDIA_CUVS"
_FP32_TABLES: Final = 48  # sub-quantizers whose lookup tables fit a block's shared memory in FP32
# Streams, a cuBLAS handle and its work space, which come with a resources object.
_HANDLE_BYTES: Final = 96 * 2**20


def has_cuvs() -> bool:
    """Whether this FAISS was built with cuVS."""
    return _CUVS in faiss.get_compile_options().split()


def abilities() -> Abilities:
    """What this build of FAISS says it can do on a GPU."""
    cuvs = has_cuvs()
    return Abilities(
        cagra=cuvs and hasattr(faiss, "GpuIndexCagra"),
        filters=cuvs and _version(faiss.__version__) >= _FILTERS_SINCE,
        most=_MOST_CUVS if cuvs else _MOST,
    )


def count_gpus() -> int:
    """The GPUs that FAISS sees; 0 with a build for the CPU."""
    return int(faiss.get_num_gpus())


class GpuDevice:
    """GPU `ordinal` among those that this process sees."""

    def __init__(self, ordinal: int, *, temp_bytes: int) -> None:
        self.name: Final = f"GPU {ordinal}"
        self.abilities: Final = abilities()
        self._ordinal, self._temp_bytes = ordinal, temp_bytes
        self._shared: _Workspace | None = None

    def free_bytes(self) -> int:
        """Memory that nobody uses now; raises OSError where the driver does not say."""
        return free_bytes(self._ordinal)

    def begin(self) -> "GpuBuilder":
        """A builder for one version of the index."""
        return GpuBuilder(self)

    @property
    def workspace_bytes(self) -> int:
        """What another resources object takes."""
        return self._temp_bytes + _HANDLE_BYTES

    @property
    def shared(self) -> "_Workspace | None":
        """The work space of all that is built quickly; None before the first."""
        return self._shared

    def share(self) -> "_Workspace":
        """The same, made where it is not there yet."""
        self._shared = self._shared or self.workspace()
        return self._shared

    def workspace(self) -> "_Workspace":
        """A new work space."""
        return _Workspace(self._ordinal, self._temp_bytes)


class GpuBuilder:
    """Builds on one GPU what one version of the index needs. For one thread."""

    def __init__(self, device: GpuDevice) -> None:
        self._device = device
        self._own: _Workspace | None = None

    def extra_bytes(self, shape: Shape) -> int:
        """What a work space takes, where this needs a new one."""
        there = self._own if shape.takes_long else self._device.shared
        return 0 if there is not None else self._device.workspace_bytes

    def build(self, shape: Shape, vectors: VectorSource) -> "GpuIndex":
        """An index over all of `vectors`; raises as FAISS does."""
        if shape.takes_long:
            self._own = workspace = self._own or self._device.workspace()
        else:
            workspace = self._device.share()
        index = GpuIndex(workspace, shape)
        try:
            index.fill(vectors)
        except DEVICE_FAILURES:
            index.close()
            raise
        return index


class _Workspace:
    """A resources object and its lock. Re-entrant: the garbage collector may close an index while its thread is in here."""

    def __init__(self, ordinal: int, temp_bytes: int) -> None:
        self.ordinal: Final = ordinal
        self.lock: Final = RLock()
        self.resources: Final = faiss.StandardGpuResources()
        self.resources.setTempMemory(temp_bytes)


class GpuIndex:
    """An index on a GPU."""

    def __init__(self, workspace: _Workspace, shape: Shape) -> None:
        self._workspace, self._shape = workspace, shape
        self._cuvs = has_cuvs()
        with workspace.lock:
            self._index: FaissIndex = _MAKERS[shape.kind](workspace, shape, self._cuvs)

    def fill(self, vectors: VectorSource) -> None:
        """Train it where it learns, and add the vectors."""
        if self._shape.kind == "cagra":
            block, options = self._as_stored(vectors.block(0, vectors.rows))
            with self._workspace.lock:
                self._index.train(block, **options)
            return
        fill(self._index, self._shape, vectors, lock=self._workspace.lock)
        if self._shape.lists and not self._cuvs:  # cuVS keeps no more than it needs
            with self._workspace.lock:
                self._index.reclaimMemory()

    def search(self, queries: Float32Array, count: int, *, effort: int, allowed: Bitmap | None) -> Scored:
        """As `DeviceIndex.search`; a build without cuVS ignores `allowed`."""
        vectors, options = self._as_stored(queries)
        with self._workspace.lock:
            found = self._index.search(vectors, count, params=self._parameters(count, effort, allowed), **options)
        return np.asarray(found[0]), np.asarray(found[1])

    def close(self) -> None:
        """Free its memory on the GPU; the work space goes with the last index that has it."""
        with self._workspace.lock:
            self._index = None

    def __del__(self) -> None:
        with suppress(AttributeError):  # where the constructor failed
            self.close()

    def _as_stored(self, vectors: Float32Array) -> tuple[Any, dict[str, Any]]:
        """A graph takes questions in the type of its rows."""
        if self._shape.kind != "cagra" or not self._shape.fp16:
            return vectors, {}
        return vectors.astype(np.float16), {"numeric_type": faiss.Float16}

    def _parameters(self, count: int, effort: int, allowed: Bitmap | None) -> Any:  # noqa: ANN401 - FAISS's classes
        if self._shape.kind == "cagra":
            # One block of threads for each question, however many are asked together: with AUTO a question would be searched
            # otherwise alone than in company, and find others.
            return selector_parameters(
                faiss.SearchParametersCagra,
                allowed,
                itopk_size=max(effort, _round_up(count)),
                algo=faiss.search_algo_SINGLE_CTA,
            )
        if self._shape.lists:
            return selector_parameters(faiss.SearchParametersIVF, allowed, nprobe=effort)
        return None if allowed is None else selector_parameters(faiss.SearchParameters, allowed)


def _flat(workspace: _Workspace, shape: Shape, cuvs: bool) -> FaissIndex:
    config = faiss.GpuIndexFlatConfig()
    config.device, config.use_cuvs, config.useFloat16 = workspace.ordinal, cuvs, shape.fp16
    return faiss.GpuIndexFlatIP(workspace.resources, shape.dims, config)


def _ivf_flat(workspace: _Workspace, shape: Shape, cuvs: bool) -> FaissIndex:
    """With cuVS, which filters, lists hold FP32 alone; FAISS's own kernels hold FP16 as a scalar quantizer."""
    if not shape.fp16:
        config = faiss.GpuIndexIVFFlatConfig()
        config.device, config.use_cuvs = workspace.ordinal, cuvs
        return faiss.GpuIndexIVFFlat(workspace.resources, shape.dims, shape.lists, faiss.METRIC_INNER_PRODUCT, config)
    config = faiss.GpuIndexIVFScalarQuantizerConfig()
    config.device, config.use_cuvs = workspace.ordinal, False
    return faiss.GpuIndexIVFScalarQuantizer(
        workspace.resources,
        shape.dims,
        shape.lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,
        config,
    )


def _ivf_pq(workspace: _Workspace, shape: Shape, cuvs: bool) -> FaissIndex:
    config = faiss.GpuIndexIVFPQConfig()
    config.device, config.use_cuvs, config.interleavedLayout = workspace.ordinal, cuvs, cuvs
    config.useFloat16LookupTables = shape.fp16 or shape.sub_quantizers > _FP32_TABLES
    bits = 8
    return faiss.GpuIndexIVFPQ(
        workspace.resources,
        shape.dims,
        shape.lists,
        shape.sub_quantizers,
        bits,
        faiss.METRIC_INNER_PRODUCT,
        config,
    )


def _cagra(workspace: _Workspace, shape: Shape, cuvs: bool) -> FaissIndex:
    config = faiss.GpuIndexCagraConfig()
    config.device, config.use_cuvs = workspace.ordinal, cuvs
    config.graph_degree, config.intermediate_graph_degree = CAGRA_DEGREE, CAGRA_BUILD_DEGREE
    config.build_algo = faiss.graph_build_algo_IVF_PQ
    return faiss.GpuIndexCagra(workspace.resources, shape.dims, faiss.METRIC_INNER_PRODUCT, config)


_MAKERS: Final[dict[DeviceKind, Any]] = {
    "flat": _flat,
    "ivf_flat": _ivf_flat,
    "ivf_pq": _ivf_pq,
    "cagra": _cagra,
}


def _round_up(count: int) -> int:
    """The itopk_size that `count` rows need: a multiple of 32."""
    return -(-count // 32) * 32


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
