"""Promises of the kinds of segment: every kind works at any size, finds what is near, and never what is not allowed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fakes import unit_vectors

from tritonrag_backends.choices import Kind
from tritonrag_backends.index import ann as ann_module
from tritonrag_backends.index.ann import Ann, build_ann
from tritonrag_backends.index.format import EXACT, KIND_CHOICES
from tritonrag_backends.index.kinds import choose, default_point, exact_is_cheaper, lists, most_effort, probes_for_share
from tritonrag_client.errors import InternalError

ANN_KINDS = [kind for kind in get_args(Kind) if kind != "flat"]
ROWS, DIMS = 3_000, 32


@dataclass
class Vectors:
    """FP32 vectors in memory."""

    values: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def dims(self) -> int:
        return int(self.values.shape[1])

    def block(self, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(self.values[start:stop], dtype=np.float32)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.values[rows], dtype=np.float32)


def built(kind: Kind, values: np.ndarray, path: Path) -> Ann:
    build_ann(kind, Vectors(values), path)
    return Ann.open(path, kind=kind, rows=len(values), dims=values.shape[1])


def bitmap(allowed: np.ndarray) -> np.ndarray:
    return np.packbits(allowed, bitorder="little")


def recall(values: np.ndarray, queries: np.ndarray, found: np.ndarray, k: int = 10) -> float:
    """The share of the k best of `values` that are among what was found."""
    best = np.argsort(-(queries @ values.T), axis=1)[:, :k]
    return float(np.mean([np.isin(wanted, rows).mean() for wanted, rows in zip(best, found, strict=True)]))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(ROWS, dim=DIMS)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit_vectors(50, dim=DIMS, seed=5)


@pytest.fixture(scope="module")
def anns(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Ann]:
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: built(kind, vectors, folder / kind) for kind in ANN_KINDS}


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_every_kind_finds_nearly_all_of_the_best(
    anns: dict[Kind, Ann], vectors: np.ndarray, queries: np.ndarray, kind: Kind
) -> None:
    point = default_point(kind)
    found = anns[kind].find(queries, candidates=10 * point.rescore, effort=point.effort)
    assert found.dtype == np.int64
    assert found.shape == (50, 10 * point.rescore)
    assert recall(vectors, queries, found) > 0.9


@pytest.mark.parametrize("dims", [1, 3, 7, 8, 33, 64])
@pytest.mark.parametrize("rows", [1, 5, 16, 300])
@pytest.mark.parametrize("kind", ANN_KINDS)
def test_every_kind_works_at_any_size(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: Kind, rows: int, dims: int
) -> None:
    values = unit_vectors(rows, dim=dims)
    ann = built(kind, values, tmp_path / "ann")
    for row in ann.find(values[:4], candidates=rows + 3, effort=10_000).tolist():
        assert sorted(row) == [-1, -1, -1, *range(rows)]
    if rows > 16:
        few = ann.find(values[:4], candidates=rows // 2, effort=10_000)
        assert (few >= 0).any(axis=1).all()
        assert few.max() < rows
    assert capfd.readouterr().err == ""  # FAISS warns of few training points


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_passages_that_are_all_the_same_are_all_found(tmp_path: Path, kind: Kind) -> None:
    values = np.repeat(unit_vectors(1, dim=DIMS), 500, axis=0)
    found = built(kind, values, tmp_path / "ann").find(values[:1], candidates=10, effort=64)
    assert len(set(found[0].tolist()) - {-1}) == 10


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_effort_has_no_bounds(anns: dict[Kind, Ann], queries: np.ndarray, kind: Kind) -> None:
    for effort in (0, 1, 10**9):
        assert (anns[kind].find(queries, candidates=30, effort=effort) >= 0).all()


@pytest.mark.parametrize("kind", ANN_KINDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.001, 0.05, 0.5, 0.999]), clustered=st.booleans())
def test_nothing_is_found_that_is_not_allowed(  # noqa: PLR0917 - what pytest and hypothesis pass
    anns: dict[Kind, Ann],
    vectors: np.ndarray,
    queries: np.ndarray,
    kind: Kind,
    seed: int,
    share: float,
    clustered: bool,
) -> None:
    random = np.random.default_rng(seed)
    order = vectors @ random.normal(size=DIMS) if clustered else random.random(ROWS)
    allowed = order <= np.quantile(order, share) if share else np.zeros(ROWS, bool)
    found = anns[kind].find(queries, candidates=20, effort=32, allowed=bitmap(allowed))
    assert found.shape == (50, 20)
    assert allowed[found[found >= 0]].all()
    for row in found:
        assert len(set(row[row >= 0].tolist())) == np.count_nonzero(row >= 0)


@pytest.mark.parametrize("kind", ANN_KINDS)
@pytest.mark.parametrize("clustered", [False, True])
def test_a_filter_costs_no_recall(
    anns: dict[Kind, Ann], vectors: np.ndarray, queries: np.ndarray, kind: Kind, clustered: bool
) -> None:
    order = vectors @ unit_vectors(1, dim=DIMS, seed=3)[0] if clustered else np.random.default_rng(0).random(ROWS)
    allowed = order > np.quantile(order, 0.5)
    rows = np.flatnonzero(allowed)
    found = anns[kind].find(
        queries, candidates=80 if kind in {"ivf_pq", "ivf_rabitq"} else 12, effort=12, allowed=bitmap(allowed)
    )
    answered = (found >= 0).sum(axis=1) >= 10  # for the others the caller compares with each allowed row
    renumbered = np.where(found >= 0, np.searchsorted(rows, found), -1)
    assert recall(vectors[rows], queries[answered], renumbered[answered]) > 0.9
    assert answered.mean() > (0.3 if kind == "hnsw" else 0.99)


def test_a_graph_over_documents_in_order_is_as_good_and_numbers_rows_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann_module, "_ROUND_ROWS", 100)
    values = unit_vectors(1_999, dim=DIMS)
    ordered = values[np.argsort(values[:, 0])]
    found = built("hnsw", ordered, tmp_path / "ann").find(ordered, candidates=1, effort=64)
    assert np.mean(found[:, 0] == np.arange(1_999)) > 0.99


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_the_same_vectors_make_the_same_file_with_any_number_of_threads(
    tmp_path: Path, vectors: np.ndarray, kind: Kind
) -> None:
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            build_ann(kind, Vectors(vectors), tmp_path / str(threads))
    finally:
        faiss.omp_set_num_threads(before)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_building_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(ann_module, "_ROUND_ROWS", 700)
    told: list[int] = []
    build_ann(kind, Vectors(unit_vectors(3_000, dim=DIMS)), tmp_path / "ann", progress=told.append)
    assert len(told) == 5
    assert told[-1] == 3_000
    assert all(a < b for a, b in pairwise(told))


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_a_full_disk_is_an_error_of_the_operating_system(vectors: np.ndarray, kind: Kind) -> None:
    with pytest.raises(OSError, match="No space left"):
        build_ann(kind, Vectors(vectors), Path("/dev/full"))


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_many_threads_find_what_one_finds(anns: dict[Kind, Ann], queries: np.ndarray, kind: Kind) -> None:
    allowed = bitmap(np.arange(ROWS) % 3 > 0)

    def find(_: int) -> list[list[int]]:
        return np.sort(anns[kind].find(queries, candidates=20, effort=16, allowed=allowed), axis=1).tolist()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(find, range(24)))
    assert all(result == results[0] for result in results)


def test_a_file_of_another_kind_or_shape_is_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    build_ann("ivf_sq8", Vectors(vectors), tmp_path / "ann.faiss")
    for kind, rows, dims in (("hnsw", ROWS, DIMS), ("ivf_sq8", ROWS + 1, DIMS), ("ivf_sq8", ROWS, DIMS + 1)):
        with pytest.raises(InternalError, match=f"manifest says {kind} over {rows} of {dims}"):
            Ann.open(tmp_path / "ann.faiss", kind=kind, rows=rows, dims=dims)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ANN_KINDS)
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, vectors: np.ndarray, kind: Kind) -> None:
    build_ann(kind, Vectors(vectors), tmp_path / "ann.faiss")
    whole = (tmp_path / "ann.faiss").read_bytes()
    for damaged in (b"", b"\0" * 100, whole[: len(whole) // 2], whole[:-100]):
        (tmp_path / "ann.faiss").write_bytes(damaged)
        with pytest.raises(InternalError, match=r"ann\.faiss"):
            Ann.open(tmp_path / "ann.faiss", kind=kind, rows=ROWS, dims=DIMS)


def test_auto_goes_by_size_and_anything_else_is_as_told() -> None:
    chosen = [choose("auto", rows) for rows in (1, 20_000, 20_001, 100_000, 1_000_000, 50_000_000)]
    assert chosen == ["flat", "flat", "hnsw", "hnsw", "ivf_pq", "ivf_pq"]
    for kind in KIND_CHOICES:
        if kind != "auto":
            assert choose(kind, 1) == choose(kind, 10**7) == kind


def test_what_was_never_measured_says_so() -> None:
    assert default_point("flat") == EXACT
    for kind in ANN_KINDS:
        assert default_point(kind).recall_at_10 is None


def test_lists_are_four_square_roots_but_for_small_segments() -> None:
    assert [lists(rows) for rows in (1, 38, 300, 10_000, 100_000, 1_000_000)] == [1, 1, 7, 256, 1_265, 4_000]


def test_effort_ends_where_nothing_is_left_to_search() -> None:
    assert most_effort("sq8", 1_000) == 0
    assert most_effort("hnsw", 1_000) == 1_000
    assert most_effort("ivf_pq", 1_000_000) == 4_000


@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_the_rarer_allowed_rows_are_the_more_lists_are_searched(one: float, other: float) -> None:
    rare, common = sorted((one, other))
    assert probes_for_share(rare) >= probes_for_share(common) >= probes_for_share(1) == 1


def test_few_allowed_rows_are_compared_one_by_one_and_many_are_not() -> None:
    assert exact_is_cheaper(1_000_000, 0)
    assert exact_is_cheaper(1_000_000, 1_000)
    assert not exact_is_cheaper(1_000_000, 900_000)
