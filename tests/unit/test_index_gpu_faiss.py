"""Promises of FAISS on a GPU that can be kept without one: what is asked of it exists, and is called as its signatures say."""

import ctypes
import inspect
import re
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from index_fakes import unit_vectors
from test_index_kinds import Vectors

from tritonrag_backends.index.gpu import faiss_gpu
from tritonrag_backends.index.gpu.cuda import Driver
from tritonrag_backends.index.gpu.device import DeviceKind
from tritonrag_backends.index.gpu.faiss_gpu import GpuDevice, abilities, count_gpus
from tritonrag_backends.index.gpu.finder import honours_selector
from tritonrag_backends.index.gpu.shapes import shape_of
from tritonrag_backends.index.gpu.stand_in import CpuDevice
from tritonrag_backends.models.placing import open_placing
from tritonrag_backends.settings import RetrieverSettings
from tritonrag_client.errors import BadRequestError

ROWS, DIM = 3_000, 32
KINDS: tuple[DeviceKind, ...] = ("flat", "ivf_flat", "ivf_pq", "cagra")
CONFIGURED = {
    "GpuIndexFlatConfig": ("device", "use_cuvs", "useFloat16"),
    "GpuIndexIVFFlatConfig": ("device", "use_cuvs"),
    "GpuIndexIVFScalarQuantizerConfig": ("device", "use_cuvs"),
    "GpuIndexIVFPQConfig": ("device", "use_cuvs", "interleavedLayout", "useFloat16LookupTables"),
}
CONFIGURED_WITH_CUVS = {
    "GpuIndexCagraConfig": ("device", "use_cuvs", "graph_degree", "intermediate_graph_degree", "build_algo"),
    "SearchParametersCagra": ("sel", "itopk_size", "algo"),
}
CALLED = {
    "StandardGpuResources": ("setTempMemory",),
    "GpuIndexFlatIP": ("search", "add"),
    "GpuIndexIVFFlat": ("search", "add", "train", "reclaimMemory", "cp"),
    "GpuIndexIVFScalarQuantizer": ("search", "add", "train", "reclaimMemory", "cp"),
    "GpuIndexIVFPQ": ("search", "add", "train", "reclaimMemory", "cp"),
}


@pytest.mark.skipif("GPU" not in faiss.get_compile_options().split(), reason="this FAISS was built for the CPU")
def test_a_build_for_gpus_has_every_name_that_we_use() -> None:
    configured = CONFIGURED | (CONFIGURED_WITH_CUVS if faiss_gpu.has_cuvs() else {})
    for name, attributes in configured.items():
        made = getattr(faiss, name)()
        assert [one for one in attributes if not hasattr(made, one)] == [], name
    called = CALLED | ({"GpuIndexCagra": ("search", "train")} if faiss_gpu.has_cuvs() else {})
    for name, attributes in called.items():
        assert [one for one in attributes if not hasattr(getattr(faiss, name), one)] == [], name
    for name in ("search", "train"):
        assert "numeric_type" in inspect.signature(getattr(faiss.GpuIndexFlatIP, name)).parameters
    assert faiss.Float16 != faiss.Float32
    assert abilities().cagra == faiss_gpu.has_cuvs() == hasattr(faiss, "GpuIndexCagra")
    if faiss_gpu.has_cuvs():
        assert hasattr(faiss, "search_algo_SINGLE_CTA")
        assert hasattr(faiss, "graph_build_algo_IVF_PQ")
    faiss.StandardGpuResources().setTempMemory(0)


@pytest.mark.skipif("GPU" not in faiss.get_compile_options().split(), reason="this FAISS was built for the CPU")
@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU: tests/gpu searches on it")
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_build_for_gpus_takes_our_arguments_and_misses_only_the_gpu(kind: DeviceKind, fp16: bool) -> None:
    if kind == "cagra" and not abilities().cagra:
        pytest.skip("no graphs without cuVS")
    shape = shape_of(kind, rows=ROWS, dims=DIM, fp16=fp16)
    with pytest.raises(RuntimeError, match="Invalid GPU device 0"):
        GpuDevice(0, temp_bytes=0).begin().build(shape, Vectors(unit_vectors(ROWS, dim=DIM)))


class FakeResources:
    """Notes whether somebody is at work with it."""

    def __init__(self) -> None:
        self.busy, self.temp_bytes = threading.Lock(), -1

    def setTempMemory(self, count: int) -> None:  # noqa: N802 - FAISS's name
        self.temp_bytes = count


class FakeFaiss:
    """FAISS's names for GPUs over its classes for the CPU; every call into an index must hold the lock of its resources."""

    __version__ = "1.15.1"
    search_algo_SINGLE_CTA = graph_build_algo_IVF_PQ = 0  # noqa: N815 - FAISS's names
    GpuIndexFlatConfig = GpuIndexIVFFlatConfig = GpuIndexIVFScalarQuantizerConfig = SimpleNamespace
    GpuIndexIVFPQConfig = GpuIndexCagraConfig = SimpleNamespace

    def __init__(self, *, cuvs: bool) -> None:
        self.cuvs = cuvs
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.resources: list[weakref.ref[FakeResources]] = []
        self.indexes: list[weakref.ref[FakeGpuIndex]] = []
        self.unlocked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    def get_compile_options(self) -> str:
        return "OPTIMIZE AVX2 GPU " + ("NVIDIA_CUVS " if self.cuvs else "")

    def SearchParametersCagra(self, *, itopk_size: int, algo: int, **selector: Any) -> Any:  # noqa: N802
        assert algo == self.search_algo_SINGLE_CTA
        return faiss.SearchParametersHNSW(efSearch=itopk_size, **selector)

    def StandardGpuResources(self) -> FakeResources:  # noqa: N802
        resources = FakeResources()
        self.resources.append(weakref.ref(resources))
        return resources

    def GpuIndexFlatIP(self, resources: Any, dims: int, config: Any) -> Any:  # noqa: N802
        return self._indexed("flat", resources, config, faiss.IndexFlatIP(dims))

    def GpuIndexIVFFlat(self, resources: Any, dims: int, lists: int, metric: int, config: Any) -> Any:  # noqa: N802
        return self._indexed(
            "ivf_flat", resources, config, faiss.IndexIVFFlat(faiss.IndexFlatIP(dims), dims, lists, metric)
        )

    def GpuIndexIVFScalarQuantizer(  # noqa: N802, PLR0917
        self, resources: Any, dims: int, lists: int, kind: int, metric: int, residual: bool, config: Any
    ) -> Any:
        made = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(dims), dims, lists, kind, metric, residual)
        return self._indexed("ivf_sq", resources, config, made)

    def GpuIndexIVFPQ(  # noqa: N802, PLR0917
        self, resources: Any, dims: int, lists: int, parts: int, bits: int, metric: int, config: Any
    ) -> Any:
        made = faiss.IndexIVFPQ(faiss.IndexFlatIP(dims), dims, lists, parts, bits, metric)
        return self._indexed("ivf_pq", resources, config, made)

    def GpuIndexCagra(self, resources: Any, dims: int, metric: int, config: Any) -> Any:  # noqa: N802
        return self._indexed("cagra", resources, config, faiss.IndexHNSWFlat(dims, 16, metric))

    def _indexed(self, kind: str, resources: Any, config: Any, index: Any) -> Any:
        self.made.append((kind, vars(config)))
        made = FakeGpuIndex(self, resources, index)
        self.indexes.append(weakref.ref(made))
        return made


class FakeGpuIndex:
    """Ignores selectors where the build does, and notes who comes in while somebody is inside."""

    def __init__(self, fake: FakeFaiss, resources: FakeResources, index: Any) -> None:
        self.fake, self.resources, self.index = fake, resources, index
        self.cp = getattr(index, "cp", None)

    def _enter(self) -> threading.Lock:
        lock: threading.Lock = self.resources.busy
        if not lock.acquire(blocking=False):
            self.fake.unlocked.append(threading.current_thread().name)
            lock.acquire()
        return lock

    def train(self, vectors: np.ndarray, numeric_type: int = faiss.Float32) -> None:
        lock = self._enter()
        self.index.train(vectors.astype(np.float32))
        if isinstance(self.index, faiss.IndexHNSWFlat):  # train builds the graph
            assert vectors.dtype == (np.float16 if numeric_type == faiss.Float16 else np.float32)
            self.index.add(vectors.astype(np.float32))
        lock.release()

    def add(self, vectors: np.ndarray) -> None:
        lock = self._enter()
        self.index.add(vectors)
        lock.release()

    def search(self, queries: np.ndarray, count: int, *, params: Any, numeric_type: int = faiss.Float32) -> Any:
        assert queries.dtype == (np.float16 if numeric_type == faiss.Float16 else np.float32)
        lock = self._enter()
        if params is not None and not self.fake.cuvs:
            params.sel = None
        found = self.index.search(queries.astype(np.float32), count, params=params)
        lock.release()
        return found

    def reclaimMemory(self) -> int:  # noqa: N802
        return 0


@pytest.fixture(params=[True, False], ids=["cuVS", "no cuVS"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeFaiss:
    fake = FakeFaiss(cuvs=request.param)
    monkeypatch.setattr(faiss_gpu, "faiss", fake)
    return fake


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_and_searched_by_the_classes_for_gpus(
    fake: FakeFaiss, kind: DeviceKind, fp16: bool
) -> None:
    if kind == "cagra" and not fake.cuvs:
        assert not abilities().cagra
        return
    values = unit_vectors(ROWS, dim=DIM)
    shape = shape_of(kind, rows=ROWS, dims=DIM, fp16=fp16 and not (kind == "ivf_flat" and fake.cuvs))
    index = GpuDevice(2, temp_bytes=123).begin().build(shape, Vectors(values))
    made, config = fake.made[0]
    assert made == ("ivf_sq" if kind == "ivf_flat" and shape.fp16 else kind)
    assert config["device"] == 2
    assert config["use_cuvs"] == (fake.cuvs and made != "ivf_sq")
    assert [resources().temp_bytes for resources in fake.resources] == [123]
    _, rows = index.search(values[:20], 10, effort=64, allowed=None)
    assert np.mean(rows[:, 0] == np.arange(20)) > 0.9
    assert honours_selector(index, shape, values[:4]) == fake.cuvs
    index.close()
    index.close()


def test_what_a_build_can_do_is_asked(fake: FakeFaiss) -> None:
    can = abilities()
    assert (can.filters, can.most) == ((True, 16_384) if fake.cuvs else (False, 2_048))
    assert can.cagra == fake.cuvs
    fake.__version__ = "1.14.1"
    assert not abilities().filters


def test_small_segments_share_their_work_space_and_large_ones_have_one_for_each_version(fake: FakeFaiss) -> None:
    del fake
    device = GpuDevice(0, temp_bytes=10**6)
    small = shape_of("flat", rows=100, dims=DIM, fp16=True)
    large = shape_of("ivf_flat", rows=ROWS, dims=DIM, fp16=True)
    first, values = device.begin(), unit_vectors(ROWS, dim=DIM)
    assert first.extra_bytes(small) == first.extra_bytes(large) == device.workspace_bytes
    indexes = [first.build(small, Vectors(values[:100])), first.build(large, Vectors(values))]
    assert first.extra_bytes(small) == first.extra_bytes(large) == 0
    second = device.begin()
    assert second.extra_bytes(small) == 0
    assert second.extra_bytes(large) == device.workspace_bytes
    indexes += [second.build(small, Vectors(values[:100])), second.build(large, Vectors(values))]
    spaces = [index._workspace for index in indexes]
    assert spaces[0] is spaces[2]
    assert len({id(space) for space in spaces}) == 3


def test_a_work_space_goes_with_the_last_index_that_has_it(fake: FakeFaiss) -> None:
    device = GpuDevice(0, temp_bytes=1)
    builder = device.begin()
    index = builder.build(shape_of("ivf_flat", rows=ROWS, dims=DIM, fp16=True), Vectors(unit_vectors(ROWS, dim=DIM)))
    del builder
    assert fake.resources[0]() is not None
    del index
    assert fake.resources[0]() is None


def test_nobody_enters_a_work_space_while_another_is_in_it(fake: FakeFaiss) -> None:
    device, values = GpuDevice(0, temp_bytes=1), unit_vectors(ROWS, dim=DIM)
    shape = shape_of("flat", rows=ROWS, dims=DIM, fp16=True)
    index = device.begin().build(shape, Vectors(values))
    building = threading.Event()

    def build() -> None:
        for _ in range(30):
            device.begin().build(shape, Vectors(values))
        building.set()

    builder = threading.Thread(target=build, name="builder")
    builder.start()
    while not building.is_set():
        index.search(values[:64], 10, effort=0, allowed=None)
    builder.join()
    assert fake.unlocked == []


def test_what_can_not_be_built_leaves_nothing_behind(fake: FakeFaiss, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("Error: out of memory")

    monkeypatch.setattr(FakeGpuIndex, "add", full)
    said = ""
    try:
        GpuDevice(0, temp_bytes=1).begin().build(
            shape_of("flat", rows=9, dims=DIM, fp16=True), Vectors(unit_vectors(9, dim=DIM))
        )
    except RuntimeError as error:
        said = str(error)
    assert said == "Error: out of memory"
    assert [index() for index in fake.indexes] == [None]


class FakeDriver:
    """The CUDA driver's functions, of a machine with two GPUs."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls, self.current = failing, [], []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return 2
            return getattr(self, f"_{name}", lambda *_: 0)(*arguments)

        if name.startswith("_"):
            raise AttributeError(name)
        return call

    def _cuDeviceGet(self, device: Any, ordinal: ctypes.c_int) -> int:  # noqa: N802
        device._obj.value = 10 + ordinal.value
        return 0 if ordinal.value < 2 else 101

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:  # noqa: N802
        context._obj.value = 100 + device.value
        return 0

    def _cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        self.current.append(context.value)
        return 0

    def _cuCtxPopCurrent_v2(self, _: Any) -> int:  # noqa: N802
        self.current.pop()
        return 0

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = self.current[-1] * 1_000, 10**9
        return 0


def test_free_memory_is_that_of_the_gpu_that_is_asked_about() -> None:
    library = FakeDriver()
    driver = Driver(library)
    assert [driver.free_bytes(gpu) for gpu in (0, 1, 0)] == [110_000, 111_000, 110_000]
    assert library.current == []
    assert library.calls.count("cuDevicePrimaryCtxRetain") == 2


@pytest.mark.parametrize("failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2"])
def test_a_driver_that_fails_is_an_error_that_names_the_call(failing: str) -> None:
    library = FakeDriver(failing)
    with pytest.raises(OSError, match=re.escape(f"{failing} failed with code 2")):
        Driver(library).free_bytes(0)
    assert library.current == []


def args(kind: str, device_id: int = 0) -> dict[str, str]:
    return {"model_instance_kind": kind, "model_instance_device_id": str(device_id)}


@pytest.mark.parametrize(
    ("device", "kind", "seen"), [("cpu", "GPU", 2), ("auto", "CPU", 2), ("auto", "GPU", 0), ("auto", "MODEL", 0)]
)
def test_the_index_is_searched_on_the_cpu_where_it_is_not_to_be_on_gpus(device: str, kind: str, seen: int) -> None:
    told: list[str] = []
    retriever = RetrieverSettings(device=device)  # type: ignore[arg-type]
    assert open_placing(retriever, args(kind), tell=told.append, seen=lambda: seen) is None
    assert told == ([] if seen else ["the index is searched on the CPU: FAISS sees no GPU"])


def test_gpus_that_are_asked_for_and_not_there_are_an_error_with_the_way_out() -> None:
    with pytest.raises(BadRequestError, match=r"FAISS sees no GPU here: install .*or set it to auto"):
        open_placing(RetrieverSettings(device="gpu"), args("CPU"), tell=print, seen=lambda: 0)


@pytest.mark.parametrize(
    ("placement", "devices", "kind", "gpus"),
    [
        ("replicate", "", "GPU", ["GPU 1"]),
        ("replicate", "0, 2", "MODEL", ["GPU 0"]),
        ("shard", "", "MODEL", ["GPU 0", "GPU 1", "GPU 2"]),
        ("shard", "2,0", "MODEL", ["GPU 2", "GPU 0"]),
    ],
)
def test_a_replica_is_on_the_instances_own_gpu_and_shards_on_all_that_are_named(
    placement: str, devices: str, kind: str, gpus: list[str]
) -> None:
    retriever = RetrieverSettings(placement=placement, devices=devices)  # type: ignore[arg-type]
    placing = open_placing(retriever, args(kind, 1), tell=print, seen=lambda: 3)
    assert placing is not None
    assert [device.name for device in placing._devices] == gpus
    placing.close()


@pytest.mark.parametrize("devices", ["3", "0,0", "one", "0,,1", "-1"])
def test_gpus_that_faiss_does_not_see_are_refused_by_name(devices: str) -> None:
    retriever = RetrieverSettings(placement="shard", devices=devices)
    with pytest.raises(BadRequestError, match=re.escape(f"TRITONRAG_RETRIEVER_DEVICES is {devices!r}")):
        open_placing(retriever, args("MODEL"), tell=print, seen=lambda: 3)


def test_an_instance_on_a_gpu_that_faiss_does_not_see_is_refused() -> None:
    with pytest.raises(BadRequestError, match="on GPU 4, and FAISS sees 2"):
        open_placing(RetrieverSettings(), args("GPU", 4), tell=print, seen=lambda: 2)


def test_the_stand_in_counts_its_memory_as_a_gpu_would() -> None:
    device = CpuDevice("GPU 0", bytes_in_all=10**6)
    index = device.build(shape_of("flat", rows=100, dims=DIM, fp16=True), Vectors(unit_vectors(100, dim=DIM)))
    assert device.free_bytes() == 10**6 - 100 * DIM * 2
    index.close()
    assert device.free_bytes() == 10**6
