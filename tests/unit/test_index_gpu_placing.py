"""Promises of bringing an index onto GPUs: what has room, what is told when there is none, what is kept, what is given back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from index_fakes import add, build, document, unit_vectors, write_index
from index_gpu_fakes import WITH_CUVS, Failing, TwistedDevice, make_placing

from tritonrag_backends.index import Index, Query
from tritonrag_backends.index.ann import faiss_threads
from tritonrag_backends.index.gpu import Placing, PlacingOptions
from tritonrag_backends.index.gpu.finder import Finder
from tritonrag_backends.index.gpu.stand_in import CpuDevice
from tritonrag_backends.index.live import LiveIndex, ReloadEvent
from tritonrag_backends.index.merging import merge
from tritonrag_backends.index.operations import collect_garbage, delete_documents, rollback
from tritonrag_client.errors import InternalError

DIM = 32
ROW_BYTES = 2 * DIM


@pytest.fixture
def vectors() -> np.ndarray:
    return unit_vectors(900, dim=DIM, seed=1)


def placing_on(devices: list[CpuDevice], tell: Callable[[str], None] = lambda _: None, **options: Any) -> Placing:
    placement = "shard" if len(devices) > 1 else "replicate"
    chosen = {"placement": placement, "kind": "flat", "least_rows": 1, "left_bytes": 0, **options}
    return Placing(devices, PlacingOptions(**chosen), tell=tell)


def opened(folder: Path, placing: Placing | None, reuse: Index | None = None) -> Index:
    return Index.open(folder, fingerprint="f1", placing=placing, reuse=reuse)


def finders(index: Index) -> list[Finder | None]:
    return [segment.placed.finder for segment in index.segments]


def require_same(index: Index, folder: Path, count: int = 20) -> None:
    """The hits of the CPU, to the bit."""
    queries = [Query(embedding=vector, num_passages=9) for vector in unit_vectors(count, dim=DIM, seed=7)]
    exact = Index.open(folder, fingerprint="f1")
    for found, expected in zip(index.search(queries), exact.search(queries), strict=True):
        assert found.passage_ids.tolist() == expected.passage_ids.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()


def units(start: int, stop: int) -> list[Any]:
    return [document(f"d{i}", f"text {i}") for i in range(start, stop)]


def test_a_segment_without_room_is_searched_on_the_cpu_and_says_so(tmp_path: Path, vectors: np.ndarray) -> None:
    build(tmp_path, units(0, 600), given=vectors[:600])
    add(tmp_path, units(600, 900), given=vectors[600:])
    device, told = CpuDevice("GPU 0", bytes_in_all=400 * ROW_BYTES), []
    index = opened(tmp_path, placing_on([device], told.append))
    assert [finder is None for finder in finders(index)] == [True, False]
    said = "segment 1 (0.0 MB) is searched on the CPU: GPU 0 has 0.0 MB free, and 0.0 MB are needed to build it there"
    assert index.degraded == said
    assert told[0] == said
    assert told[1].startswith("segment 2 (300 passages) is searched on GPU 0: flat, 0.0 MB, ")
    require_same(index, tmp_path)


def test_sizes_are_told_in_units_that_one_can_read(tmp_path: Path, vectors: np.ndarray) -> None:
    write_index(tmp_path, vectors)
    device = CpuDevice("GPU 3", bytes_in_all=400_000_000)
    index = opened(tmp_path, placing_on([device], left_bytes=1_234_567_890))
    assert index.degraded == (
        "segment 1 (0.1 MB) is searched on the CPU: GPU 3 has 0.4 GB free, and 1.2 GB are needed to build it there"
    )


@pytest.mark.parametrize("error", [RuntimeError("Error: out of memory"), MemoryError(), OSError("no driver")])
def test_a_device_that_fails_while_building_costs_only_the_device(
    tmp_path: Path, vectors: np.ndarray, error: Exception
) -> None:
    class Broken(CpuDevice):
        def build(self, *_: Any) -> Any:
            raise error

    write_index(tmp_path, vectors)
    index = opened(tmp_path, placing_on([Broken("GPU 0")]))
    assert index.degraded.startswith("segment 1 (0.1 MB) is searched on the CPU: ")
    require_same(index, tmp_path)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_segment_is_never_half_placed(tmp_path: Path, vectors: np.ndarray, short: int) -> None:
    write_index(tmp_path, vectors)
    devices = [CpuDevice(f"GPU {i}", bytes_in_all=10**9 if i != short else 8) for i in range(3)]
    index = opened(tmp_path, placing_on(devices))
    assert finders(index) == [None]
    assert f"GPU {short} has 0.0 MB free" in index.degraded
    assert [device.held_bytes for device in devices] == [0, 0, 0]
    require_same(index, tmp_path)


def test_small_segments_stay_on_the_cpu_and_nothing_is_given_up(tmp_path: Path, vectors: np.ndarray) -> None:
    write_index(tmp_path, vectors)
    index = opened(tmp_path, placing_on([CpuDevice("GPU 0")], least_rows=901))
    assert finders(index) == [None]
    assert index.degraded == ""


def test_what_was_placed_stays_and_what_found_no_room_is_tried_again_with_each_version(
    tmp_path: Path, vectors: np.ndarray
) -> None:
    build(tmp_path, units(0, 500), given=vectors[:500])
    device = CpuDevice("GPU 0", bytes_in_all=650 * ROW_BYTES)
    placing = placing_on([device])
    first = opened(tmp_path, placing)
    add(tmp_path, units(500, 800), given=vectors[500:800])
    second = opened(tmp_path, placing, reuse=first)
    assert finders(second)[0] is finders(first)[0]
    assert finders(second)[1] is None
    assert "segment 2" in second.degraded
    device._bytes_in_all *= 2
    add(tmp_path, units(800, 900), given=vectors[800:])
    third = opened(tmp_path, placing, reuse=second)
    assert finders(third)[0] is finders(first)[0]
    assert None not in finders(third)
    assert third.degraded == ""
    assert device.held_bytes == 900 * ROW_BYTES
    require_same(third, tmp_path)


def test_the_memory_of_a_version_is_given_back_with_it(tmp_path: Path, vectors: np.ndarray) -> None:
    build(tmp_path, units(0, 500), given=vectors[:500])
    device = CpuDevice("GPU 0")
    placing = placing_on([device])
    first = opened(tmp_path, placing)
    build(tmp_path / "other", units(0, 100), given=vectors[:100])
    other = opened(tmp_path / "other", placing, reuse=first)  # shares nothing
    assert device.held_bytes == 600 * ROW_BYTES
    del first
    assert device.held_bytes == 100 * ROW_BYTES
    del other
    assert device.held_bytes == 0


def test_updates_deletions_merges_and_rollbacks_are_searched_on_devices_as_on_the_cpu(
    tmp_path: Path, vectors: np.ndarray
) -> None:
    devices = [CpuDevice(f"GPU {i}") for i in range(2)]
    placing = placing_on(devices)
    build(tmp_path, units(0, 400), given=vectors[:400])
    index = opened(tmp_path, placing)
    for change in (
        lambda: add(tmp_path, units(400, 600), given=vectors[400:600]),
        lambda: delete_documents(tmp_path, [f"d{i}" for i in range(0, 500, 3)]),
        lambda: add(tmp_path, units(100, 200), given=vectors[600:700]),
        lambda: merge(tmp_path, everything=True),
        lambda: rollback(tmp_path),
    ):
        change()
        index = opened(tmp_path, placing, reuse=index)
        assert None not in finders(index)
        require_same(index, tmp_path)
    live_bytes = sum(segment.rows for segment in index.segments) * ROW_BYTES
    assert sum(device.held_bytes for device in devices) == live_bytes
    collect_garbage(tmp_path)


def test_a_search_that_fails_is_answered_by_the_cpu_and_told_until_one_succeeds(
    tmp_path: Path, vectors: np.ndarray
) -> None:
    write_index(tmp_path, vectors)
    failing = Failing()
    index = opened(tmp_path, placing_on([TwistedDevice("GPU 0", failing, abilities=WITH_CUVS)]))
    require_same(index, tmp_path)
    assert index.degraded == ""
    failing.fails = True
    require_same(index, tmp_path)
    assert index.degraded == (
        "segment 1 is searched on the CPU: GPU 0 failed to search it: 'err == cudaSuccess' failed"
    )
    failing.fails = False
    require_same(index, tmp_path)
    assert index.degraded == ""


def test_an_approximate_index_whose_device_fails_is_searched_by_the_segments_own_file(tmp_path: Path) -> None:
    vectors = unit_vectors(2_000, dim=DIM)
    write_index(tmp_path, vectors, kind="hnsw")
    failing = Failing()
    device = TwistedDevice("GPU 0", failing, abilities=WITH_CUVS)
    index = opened(tmp_path, placing_on([device], kind="auto"))
    assert finders(index)[0] is not None
    failing.fails = True
    queries = [Query(embedding=vector, num_passages=9) for vector in unit_vectors(20, dim=DIM, seed=7)]
    plain = opened(tmp_path, None)
    for found, expected in zip(index.search(queries), plain.search(queries), strict=True):
        assert found.passage_ids.tolist() == expected.passage_ids.tolist()
    assert "GPU 0 failed to search it" in index.degraded


def test_a_graph_reaches_the_target_by_searching_wider_and_tells_what_it_reached(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(3_000, dim=DIM), kind="hnsw")
    told: list[str] = []
    index = opened(tmp_path, placing_on([CpuDevice("GPU 0")], told.append, kind="auto"))
    finder = finders(index)[0]
    assert finder is not None
    assert finder.kind == "cagra"
    assert finder.point.effort in {64, 128, 256, 512}
    assert finder.point.recall_at_10 is not None
    assert finder.point.recall_at_10 >= 0.95
    assert "cagra, 1.0 MB, " in told[0]
    assert f"itopk_size {finder.point.effort}, 1 re-scored" in told[0]


def test_lists_are_searched_no_less_than_the_manifest_says(tmp_path: Path) -> None:
    manifest = write_index(tmp_path, unit_vectors(3_000, dim=DIM), kind="ivf_pq")
    finder = finders(opened(tmp_path, placing_on([CpuDevice("GPU 0")], kind="auto")))[0]
    assert finder is not None
    assert finder.kind == "ivf_pq"
    assert finder.point.effort >= manifest.segments[0].point.effort
    assert finder.point.rescore >= manifest.segments[0].point.rescore


@pytest.mark.parametrize("gpus", [1, 2])
def test_while_versions_change_under_load_every_answer_is_that_of_one_version(
    tmp_path: Path, vectors: np.ndarray, gpus: int
) -> None:
    build(tmp_path, units(0, 300), given=vectors[:300])
    events: list[ReloadEvent] = []
    placing = make_placing("filtering", gpus)
    live = LiveIndex.open(
        tmp_path, fingerprint="f1", embedder_name="fake", poll_s=0.001, on_reload=events.append, placing=placing
    )
    queries = [Query(embedding=vector, num_passages=5) for vector in unit_vectors(8, dim=DIM, seed=7)]
    expected = {1: ids(Index.open(tmp_path, fingerprint="f1"), queries)}
    stop, seen = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            index = live.current
            seen.append((index.version, ids(index, queries)))

    live.follow()
    with ThreadPoolExecutor(2) as pool:
        searching = [pool.submit(search) for _ in range(2)]
        try:
            for start in range(300, 900, 150):
                add(tmp_path, units(start, start + 150), given=vectors[start : start + 150])
                version = Index.open(tmp_path, fingerprint="f1")
                expected[version.version] = ids(version, queries)
                reached(lambda wanted=version.version: live.current.version == wanted)
        finally:
            stop.set()
        for one in searching:
            one.result()
    live.close()
    assert {version for version, _ in seen} <= expected.keys()
    assert all(found == expected[version] for version, found in seen)
    assert [event.error for event in events] == [None] * 4
    assert None not in finders(live.current)
    placing.close()


def ids(index: Index, queries: list[Query]) -> list[list[int]]:
    return [hits.passage_ids.tolist() for hits in index.search(queries)]


def reached(condition: Callable[[], bool]) -> None:
    """Wait for it; the pause between two looks is the other threads' chance, not a guess how long they take."""
    deadline = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("it did not happen within 30 s")


def test_a_merged_segment_takes_the_place_of_those_that_it_is_made_of_once_they_are_gone(
    tmp_path: Path, vectors: np.ndarray
) -> None:
    build(tmp_path, units(0, 400), given=vectors[:400])
    add(tmp_path, units(400, 800), given=vectors[400:800])
    device = CpuDevice("GPU 0", bytes_in_all=1_000 * ROW_BYTES)
    events: list[ReloadEvent] = []
    live = LiveIndex.open(
        tmp_path,
        fingerprint="f1",
        embedder_name="fake",
        poll_s=1,
        on_reload=events.append,
        placing=placing_on([device]),
    )
    merge(tmp_path, everything=True)
    live.look()
    assert "segment 3" in live.current.degraded
    assert len(events) == 1
    events.clear()
    require_same(live.current, tmp_path)
    live.look()
    assert live.current.degraded == ""
    assert None not in finders(live.current)
    require_same(live.current, tmp_path)


def test_what_is_left_to_the_cpu_gets_as_many_threads_as_its_instance_may_have() -> None:
    with faiss_threads(3):
        placing = placing_on([CpuDevice("GPU 0"), CpuDevice("GPU 1")])
    assert placing.together is not None
    assert {placing.together.submit(faiss.omp_get_max_threads).result() for _ in range(4)} == {3}
    placing.close()


def test_a_version_that_is_refused_takes_no_memory(tmp_path: Path, vectors: np.ndarray) -> None:
    write_index(tmp_path, vectors, dims=16, reduction="pca")
    (projection,) = (tmp_path / "shared").glob("projection-*")
    projection.write_bytes(b"\0" * projection.stat().st_size)
    device = CpuDevice("GPU 0")
    with pytest.raises(InternalError):
        opened(tmp_path, placing_on([device]))
    assert device.held_bytes == 0


def test_what_is_placed_again_is_doubted_as_before(tmp_path: Path, vectors: np.ndarray) -> None:
    build(tmp_path, units(0, 400), given=vectors[:400])
    placing = placing_on([CpuDevice("GPU 0", bytes_in_all=0)])
    index = opened(tmp_path, placing).doubted("a file was changed")
    assert index.placed_again(placing).degraded == index.degraded
    assert "a file was changed" in index.degraded
    placing.close()
