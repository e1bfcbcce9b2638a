"""Promises of an index on a device, kept by a real GPU as by the pretended ones of tests/unit/test_index_gpu_search.py."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from devices import NEEDS_FAISS, on_gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_fakes import add, build, document, unit_vectors
from test_index_gpu_search import DIM, Trained, require_same, some_queries

from tritonrag_backends.index import Index, Query
from tritonrag_backends.index.gpu import Placing, PlacingOptions
from tritonrag_backends.index.gpu.device import Device
from tritonrag_backends.index.gpu.faiss_gpu import GpuDevice, count_gpus
from tritonrag_backends.index.gpu.stand_in import CpuDevice
from tritonrag_backends.index.operations import delete_documents

ROWS = 2_000
TENANTS = (None, "acme", "zeta")
MakeDevice = Callable[[int], Device]


def make_gpu(number: int) -> Device:
    return GpuDevice(number, temp_bytes=64 * 2**20)


def make_stand_in(number: int) -> Device:
    return CpuDevice(f"GPU {number}")


@pytest.fixture(scope="module", params=["stand-in", on_gpu("GPU", NEEDS_FAISS)])
def make_device(request: pytest.FixtureRequest) -> MakeDevice:
    return make_gpu if request.param == "GPU" else make_stand_in


@pytest.fixture(autouse=True)
def _few_rows_are_searched_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag_backends.index.gpu.finder._FEW_ROWS", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments, some rows deleted, some behind walls."""
    vectors = unit_vectors(ROWS, dim=DIM, seed=1)
    units = [
        document(f"d{i}", f"text {i}", tenant=TENANTS[i % 3], n=i, half=i % 2 == 0, rare=i % 97 == 0)
        for i in range(ROWS)
    ]
    directory = tmp_path_factory.mktemp("flat")
    build(directory, units[:1_300], given=vectors[:1_300])
    add(directory, units[1_300:], given=vectors[1_300:])
    for tenant in TENANTS:
        delete_documents(directory, [unit.id for unit in units[5:1500:11] if unit.tenant == tenant], tenant=tenant)
    return directory


@pytest.fixture(scope="module")
def exact(folder: Path) -> Index:
    return Index.open(folder, fingerprint="f1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def placing_of(devices: list[Device], **options: object) -> Placing:
    told = PlacingOptions(**{"least_rows": 1, "left_bytes": 0, **options})  # type: ignore[arg-type]
    return Placing(devices, told, tell=lambda _: None)


@pytest.fixture(scope="module")
def placed(folder: Path, make_device: MakeDevice) -> Iterator[dict[bool, Index]]:
    """Flat on one device, in either precision."""
    placings = {fp16: placing_of([make_device(0)], kind="flat", fp16=fp16) for fp16 in (False, True)}
    yield {fp16: Index.open(folder, fingerprint="f1", placing=placing) for fp16, placing in placings.items()}
    for placing in placings.values():
        placing.close()


def test_every_segment_is_on_the_device(placed: dict[bool, Index]) -> None:
    for index in placed.values():
        assert index.degraded == ""
        finders = [segment.placed.finder for segment in index.segments]
        assert [finder is not None and finder.kind for finder in finders] == ["flat", "flat"]


@pytest.mark.parametrize("fp16", [False, True])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_comparing_with_every_row_gives_the_hits_of_the_cpu_to_the_bit(
    placed: dict[bool, Index], exact: Index, fp16: bool, seed: int
) -> None:
    """Whatever the tenant, the filter and the number of passages."""
    require_same(placed[fp16], exact, some_queries(25, seed))


@pytest.mark.parametrize("fp16", [False, True])
def test_the_device_leaves_nothing_to_the_cpu(
    placed: dict[bool, Index], fp16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("compared on the CPU")

    monkeypatch.setattr("tritonrag_backends.index.segment.Segment.exact", never)
    queries = [Query(embedding=vector, num_passages=10) for vector in unit_vectors(40, dim=DIM, seed=4)]
    assert all(len(hits.passage_ids) == 10 for hits in placed[fp16].search(queries))


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", "cagra"])
def test_every_kind_finds_nearly_all_and_only_what_is_allowed(
    trained: Trained, make_device: MakeDevice, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonrag_backends.index.gpu.shapes.LEAST_TRAINED_ROWS", 500)
    device = make_device(0)
    if kind == "cagra" and not device.abilities.cagra:
        pytest.skip("this FAISS has no CAGRA: install faiss-gpu-cuvs")
    placing = placing_of([device], kind=kind)
    index = Index.open(trained.folder, fingerprint="f1", placing=placing)
    finder = index.segments[0].placed.finder
    assert finder is not None, index.degraded
    assert finder.kind == kind
    every = np.arange(3_000)
    assert trained.recall(index, every, None) >= 0.93
    assert trained.recall(index, every[every % 10 < 9], '{"tenth": true}') >= 0.93
    assert trained.recall(index, every[:1_200], '{"n": {"lt": 1200}}') >= 0.93
    placing.close()


def test_memory_is_given_back_with_the_index(folder: Path, make_device: MakeDevice) -> None:
    device = make_device(0)
    placing = placing_of([device], kind="flat", fp16=False)
    index = Index.open(folder, fingerprint="f1", placing=placing)
    held = [segment.placed.finder for segment in index.segments]
    with_it = device.free_bytes()
    for finder in held:
        assert finder is not None
        finder.close()
    del index, held
    gc.collect()
    assert device.free_bytes() >= with_it
    placing.close()


def test_a_device_without_room_leaves_its_segments_to_the_cpu_and_says_so(
    folder: Path, exact: Index, make_device: MakeDevice
) -> None:
    device = make_device(0)
    placing = placing_of([device], kind="flat", left_bytes=device.free_bytes())
    index = Index.open(folder, fingerprint="f1", placing=placing)
    assert "is searched on the CPU" in index.degraded
    require_same(index, exact, some_queries(10, 3))
    placing.close()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make_stand_in, id="stand-in"),
        pytest.param(
            make_gpu, id="GPU", marks=[*NEEDS_FAISS, pytest.mark.skipif(count_gpus() < 2, reason="needs two GPUs")]
        ),
    ],
)
@pytest.mark.parametrize("fp16", [False, True])
def test_shards_over_several_devices_are_searched_as_one(
    folder: Path, exact: Index, make: MakeDevice, fp16: bool
) -> None:
    placing = placing_of([make(number) for number in range(2)], placement="shard", kind="flat", fp16=fp16)
    index = Index.open(folder, fingerprint="f1", placing=placing)
    parts = [part for segment in index.segments if segment.placed.finder for part in segment.placed.finder.parts]
    assert len({part.device for part in parts}) == 2
    require_same(index, exact, some_queries(60, 5))
    placing.close()
