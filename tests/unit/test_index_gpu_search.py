"""Promises of an index on GPUs, kept on pretended ones: the same hits, to the bit, whatever the devices do."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_fakes import add, build, document, unit_vectors, write_index
from index_gpu_fakes import DEVICES, WITH_CUVS, Imprecise, TwistedDevice, make_placing

from tritonrag_backends.index import Index, Query, parse_filter
from tritonrag_backends.index.gpu import Placing, PlacingOptions
from tritonrag_backends.index.gpu.device import FP16_ERROR
from tritonrag_backends.index.operations import delete_documents

ROWS, DIM = 2_000, 32
TENANTS = (None, "acme", "zeta")
# (pretended GPUs; one: replicas, more: shards)
GPUS = (1, 2, 3)
WITHOUT_GRAPHS = ("ignoring", "lying without filters")
TRAINED = ("ivf_flat", "ivf_pq", "cagra")


@pytest.fixture(autouse=True)
def _few_rows_are_searched_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonrag_backends.index.gpu.finder._FEW_ROWS", 0)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(ROWS, dim=DIM, seed=1)


@pytest.fixture(scope="module")
def folder(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments, some rows deleted, some behind walls."""
    chance = random.Random(3)
    units = [
        document(f"d{i}", f"text {i}", tenant=chance.choice((*TENANTS, None)), n=i, half=i % 2 == 0, rare=i % 97 == 0)
        for i in range(ROWS)
    ]
    directory = tmp_path_factory.mktemp("flat")
    for start, stop in ((0, 1_100), (1_100, 1_900), (1_900, ROWS)):
        (build if start == 0 else add)(directory, units[start:stop], given=vectors[start:stop])
    for tenant in TENANTS:
        delete_documents(directory, [unit.id for unit in units[5:1500:11] if unit.tenant == tenant], tenant=tenant)
    return directory


@pytest.fixture(scope="module")
def exact(folder: Path) -> Index:
    return Index.open(folder, fingerprint="f1")


def some_queries(count: int, seed: int) -> list[Query]:
    chance = random.Random(seed)
    vectors = unit_vectors(count, dim=DIM, seed=seed % 2**32)
    conditions = [None, None, {"half": True}, {"rare": True}, {"n": {"lt": 1500}}, {"n": {"gte": 1990}}, {"n": 12}]
    queries = []
    for vector in vectors:
        condition = chance.choice(conditions)
        queries.append(
            Query(
                embedding=vector,
                num_passages=chance.choice((1, 5, 10, 300)),
                tenant=chance.choice((*TENANTS, "nobody")),
                filter=None if condition is None else parse_filter(json.dumps(condition)),
            )
        )
    return queries


def require_same(index: Index, exact: Index, queries: list[Query]) -> None:
    for found, expected in zip(index.search(queries), exact.search(queries), strict=True):
        assert found.passage_ids.tolist() == expected.passage_ids.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()


def opened(folder: Path, placing: Placing, **options: Any) -> Index:
    return Index.open(folder, fingerprint="f1", placing=placing, **options)


@pytest.fixture(scope="module")
def placed(folder: Path) -> Iterator[dict[tuple[str, int, bool], Index]]:
    """The index on every device and placement, in either precision."""
    placings = {
        (device, gpus, fp16): make_placing(device, gpus, kind="flat", fp16=fp16)
        for device in DEVICES
        for gpus in GPUS
        for fp16 in (False, True)
    }
    yield {key: opened(folder, placing) for key, placing in placings.items()}
    for placing in placings.values():
        placing.close()


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_comparing_with_every_row_on_any_device_gives_the_hits_of_the_cpu_to_the_bit(  # noqa: PLR0917
    placed: dict[tuple[str, int, bool], Index], exact: Index, device: str, gpus: int, fp16: bool, seed: int
) -> None:
    require_same(placed[device, gpus, fp16], exact, some_queries(25, seed))


@pytest.mark.parametrize("gpus", GPUS)
@pytest.mark.parametrize("device", [device for device in DEVICES if device not in {"full", "tiny"}])
def test_it_is_the_devices_that_are_asked(placed: dict[tuple[str, int, bool], Index], device: str, gpus: int) -> None:
    index = placed[device, gpus, True]
    finders = [segment.placed.finder for segment in index.segments]
    assert all(finder is not None and finder.exact for finder in finders)
    assert len({part.device for finder in finders if finder is not None for part in finder.parts}) == gpus
    assert index.degraded == ""


def test_devices_that_behave_leave_nothing_to_the_cpu(
    placed: dict[tuple[str, int, bool], Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("compared on the CPU")

    monkeypatch.setattr("tritonrag_backends.index.segment.Segment.exact", never)
    queries = [Query(embedding=vector, num_passages=10) for vector in unit_vectors(40, dim=DIM, seed=4)]
    for device in ("filtering", "ignoring"):
        for gpus in GPUS:
            for fp16 in (False, True):
                assert all(len(hits.passage_ids) == 10 for hits in placed[device, gpus, fp16].search(queries))


@pytest.mark.parametrize("device", ["filtering", "deaf", "ignoring"])
def test_whether_an_index_filters_is_tried_not_believed(
    placed: dict[tuple[str, int, bool], Index], device: str
) -> None:
    for segment in placed[device, 2, True].segments:
        assert segment.placed.finder is not None
        assert segment.placed.finder.filters == (device == "filtering")


@pytest.mark.parametrize("fp16", [False, True])
def test_a_question_has_the_same_answer_to_the_bit_alone_and_in_any_batch(
    placed: dict[tuple[str, int, bool], Index], fp16: bool
) -> None:
    index, queries = placed["filtering", 3, fp16], some_queries(33, 9)
    alone = [index.search([query])[0] for query in queries]
    for one, hits in zip(alone, index.search(queries), strict=True):
        assert hits.passage_ids.tolist() == one.passage_ids.tolist()
        assert hits.scores.tobytes() == one.scores.tobytes()


@pytest.mark.parametrize("copies", [60, 1_000])
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("gpus", GPUS)
def test_equal_scores_stand_in_the_order_of_ids_however_many_there_are(
    tmp_path: Path, gpus: int, fp16: bool, copies: int
) -> None:
    same = np.repeat(unit_vectors(2, dim=DIM), copies, axis=0)
    np.random.default_rng(1).shuffle(same)
    write_index(tmp_path, same)
    placing = make_placing("filtering", gpus, fp16=fp16)
    query = Query(embedding=same[0], num_passages=5)
    (hits,) = opened(tmp_path, placing).search([query])
    rows = np.flatnonzero((same == same[0]).all(axis=1))[:5]
    assert (hits.passage_ids & 0xFFFFFFFF).tolist() == rows.tolist()
    placing.close()


@pytest.mark.parametrize("vector_type", ["fp16", "int8"])
def test_vectors_stored_in_fewer_bytes_are_found_as_on_the_cpu(
    tmp_path: Path, vectors: np.ndarray, vector_type: str
) -> None:
    units = [document(f"d{i}", f"text {i}") for i in range(600)]
    build(tmp_path, units, given=vectors[:600], vectors=vector_type)
    placing = make_placing("filtering", 2)
    index, exact = opened(tmp_path, placing), Index.open(tmp_path, fingerprint="f1")
    queries = [Query(embedding=vector, num_passages=7) for vector in unit_vectors(30, dim=DIM, seed=8)]
    require_same(index, exact, queries)
    placing.close()


@pytest.mark.parametrize("off_by", [0.98 * FP16_ERROR, 3 * FP16_ERROR, 0.05])
def test_rows_that_a_device_can_not_tell_apart_are_told_apart(tmp_path: Path, off_by: float) -> None:
    """As far off as half precision may be at worst, for every row; or farther, which is noticed."""
    random = np.random.default_rng(4)
    alike = unit_vectors(1, dim=DIM) + 2e-3 * random.normal(size=(1_500, DIM))
    alike = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
    write_index(tmp_path, alike)
    device = TwistedDevice("GPU 0", Imprecise(off_by), abilities=WITH_CUVS)
    placing = Placing([device], PlacingOptions(fp16=True, left_bytes=0), tell=lambda _: None)
    questions = unit_vectors(1, dim=DIM) + 0.2 * random.normal(size=(30, DIM))
    questions = (questions / np.linalg.norm(questions, axis=1, keepdims=True)).astype(np.float32)
    queries = [Query(embedding=vector, num_passages=5) for vector in questions]
    index = opened(tmp_path, placing)
    assert index.segments[0].placed.finder is not None
    for query in queries:
        require_same(index, Index.open(tmp_path, fingerprint="f1"), [query])
    placing.close()


class Trained:
    """A larger index of one segment, built for the CPU as hnsw, and its vectors."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.vectors = folder, unit_vectors(3_000, dim=DIM, seed=2)
        units = [document(f"d{i}", f"text {i}", n=i, tenth=i % 10 < 9) for i in range(3_000)]
        build(folder, units, given=self.vectors, kind="ivf_flat")

    def recall(self, index: Index, rows: np.ndarray, condition: str | None) -> float:
        right = 0
        queries = unit_vectors(60, dim=DIM, seed=5)
        chosen = None if condition is None else parse_filter(condition)
        asked = [Query(embedding=vector, num_passages=10, filter=chosen) for vector in queries]
        for vector, hits in zip(queries, index.search(asked), strict=True):
            found = hits.passage_ids & 0xFFFFFFFF
            assert len(set(found.tolist())) == 10
            assert np.isin(found, rows).all()
            np.testing.assert_allclose(hits.scores, self.vectors[found] @ vector, atol=1e-6)
            best = rows[np.argsort(-(self.vectors[rows] @ vector), kind="stable")[:10]]
            right += len(set(found.tolist()) & set(best.tolist()))
        return right / 600


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("device", [device for device in DEVICES if device != "imprecise"])
@pytest.mark.parametrize("kind", TRAINED)
def test_every_kind_on_any_device_finds_nearly_all_and_only_what_is_allowed(
    trained: Trained, kind: str, device: str, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonrag_backends.index.gpu.shapes.LEAST_TRAINED_ROWS", 500)
    placing = make_placing(device, gpus, kind=kind)
    index = opened(trained.folder, placing)
    finder = index.segments[0].placed.finder
    if device not in {"full", "tiny"}:
        assert finder is not None
        assert finder.kind == ("ivf_flat" if kind == "cagra" and device in WITHOUT_GRAPHS else kind)
    every = np.arange(3_000)
    # One that lies puts other rows in the place of some of the best: what it returns is allowed, so nobody can tell.
    least = 0.8 if "lying" in device else 0.93
    assert trained.recall(index, every, None) >= least
    assert trained.recall(index, every[every % 10 < 9], '{"tenth": true}') >= least
    assert trained.recall(index, every[:1_200], '{"n": {"lt": 1200}}') >= least
    placing.close()


@pytest.mark.parametrize("kind", TRAINED)
def test_a_device_that_once_returned_a_row_that_is_not_allowed_is_believed_nothing_of_that_question(
    trained: Trained, kind: str
) -> None:
    tried: list[int] = []

    def sly(search: Any, asked: dict[str, Any]) -> Any:
        scores, rows = search()
        if asked["allowed"] is not None:
            tried.append(len(rows))
            if len(tried) > 1:
                rows[:] = np.arange(rows.shape[1])  # allowed, and not the best
                rows[:, -1] = asked["rows"] - 1
        return scores, rows

    placing = Placing(
        [TwistedDevice("GPU 0", sly, abilities=WITH_CUVS)],
        PlacingOptions(kind=kind, left_bytes=0),  # type: ignore[arg-type]
        tell=lambda _: None,
    )
    index = opened(trained.folder, placing)
    finder = index.segments[0].placed.finder
    assert finder is not None
    assert finder.filters
    every = np.arange(3_000)
    assert trained.recall(index, every[:2_500], '{"n": {"lt": 2500}}') == 1
    assert len(tried) > 1
    placing.close()
