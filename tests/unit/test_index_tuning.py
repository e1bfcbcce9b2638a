"""Promises of tuning: the fastest search that reaches the recall, on questions that had no part in choosing it."""

from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fakes import unit_vectors

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.ann import Ann, build_ann
from tritonrag_backends.index.format import EXACT, OperatingPoint
from tritonrag_backends.index.kinds import default_point, most_effort
from tritonrag_backends.index.tuning import falls_short, tune
from tritonrag_backends.index.vectors import StoredVectors

K = 10
QUERIES = np.zeros((200, 4), np.float32)


@dataclass
class Simulated:
    """A segment that finds as much of the best ten as `recall` says and takes as long as `seconds` says."""

    kind: Kind = "hnsw"
    rows: int = 100_000
    limit: float = 1.0  # recall that no effort exceeds
    seconds_a_candidate: float = 0.0
    now: float = 0.0
    asked: list[OperatingPoint] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def recall(self, point: OperatingPoint) -> float:
        return min(self.limit, 0.4 + 0.1 * np.log2(max(point.effort, 1)) * (1 if point.rescore > 1 else 0.8))

    def exact(self, queries: np.ndarray, k: int) -> np.ndarray:
        return np.tile(np.arange(k), (len(queries), 1))

    def approximate(self, queries: np.ndarray, k: int, point: OperatingPoint) -> np.ndarray:
        self.asked.append(point)
        self.threads.add(faiss.omp_get_max_threads())
        self.now += len(queries) * (point.effort * 1e-6 + point.rescore * self.seconds_a_candidate)
        found = int(self.recall(point) * k + 1e-9)
        return np.tile(np.concatenate([np.arange(found), 1_000 + np.arange(k - found)]), (len(queries), 1))

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:  # noqa: ARG002 - as a segment has it
        return np.where(rows < 0, -np.inf, 1 / (2 + rows)).astype(np.float32)

    def tuned(self, target: float = 0.95, queries: np.ndarray = QUERIES) -> OperatingPoint:
        return tune(self, queries, target=target, clock=lambda: self.now)


class Built:
    """A real segment."""

    def __init__(self, kind: Kind, values: np.ndarray, folder: Path) -> None:
        self.kind: Kind = kind
        self.rows = len(values)
        self._vectors = StoredVectors(values, None)
        build_ann(kind, self._vectors, folder / kind)
        self._ann = Ann.open(folder / kind, kind=kind, rows=self.rows, dims=values.shape[1])

    def exact(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self._best(queries, self._vectors.nearest(queries, k), k)

    def approximate(self, queries: np.ndarray, k: int, point: OperatingPoint) -> np.ndarray:
        candidates = min(self.rows, max(k + 8, k * point.rescore))
        return self._best(queries, self._ann.find(queries, candidates=candidates, effort=point.effort), k)

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._vectors.scores(queries, rows)

    def _best(self, queries: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
        return np.take_along_axis(rows, np.argsort(-self.scores(queries, rows), axis=1)[:, :k], axis=1)


@pytest.mark.parametrize("kind", ["sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"])
def test_the_recall_that_is_told_holds_for_questions_never_seen(tmp_path: Path, kind: Kind) -> None:
    segment = Built(kind, unit_vectors(5_000, dim=32), tmp_path)
    point = tune(segment, unit_vectors(200, dim=32, seed=5), target=0.95)
    unseen = unit_vectors(400, dim=32, seed=6)
    best = segment.exact(unseen, K)
    found = segment.approximate(unseen, K, point)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)])
    assert point.queries == 100
    assert point.recall_at_10 is not None
    assert point.recall_at_10 >= 0.93
    assert recall == pytest.approx(point.recall_at_10, abs=0.03)
    assert point.effort <= most_effort(kind, 5_000)


def test_flat_needs_no_measuring() -> None:
    segment = Simulated(kind="flat")
    assert segment.tuned() == EXACT
    assert segment.asked == []


def test_without_questions_nothing_is_claimed() -> None:
    assert Simulated().tuned(queries=QUERIES[:0]) == default_point("hnsw")


def test_the_least_effort_that_is_enough_is_taken() -> None:
    segment = Simulated(seconds_a_candidate=1e-3)  # re-scoring is dear
    point = segment.tuned(target=0.9)
    assert point.rescore == 1
    assert segment.recall(point) >= 0.9
    assert segment.recall(OperatingPoint(effort=int(point.effort / 1.3), rescore=1, recall_at_10=None, queries=0)) < 0.9


def test_more_candidates_are_taken_where_they_save_time() -> None:
    cheap, dear = Simulated(seconds_a_candidate=0), Simulated(seconds_a_candidate=1e-3)
    assert cheap.tuned(0.9).rescore > dear.tuned(0.9).rescore
    assert cheap.tuned(0.9).effort < dear.tuned(0.9).effort


def test_of_points_that_are_as_fast_the_one_with_the_fewest_candidates_is_taken() -> None:
    point = tune(Simulated(), QUERIES, target=0.9, clock=lambda: 0.0)
    assert point.rescore == 1
    assert tune(Simulated(), QUERIES, target=0.9, clock=lambda: 0.0) == point


def test_a_target_out_of_reach_gives_the_best_there_is_with_the_least_effort() -> None:
    segment = Simulated(kind="ivf_pq", limit=0.7)
    point = segment.tuned(target=0.99)
    assert point.recall_at_10 == 0.7
    assert point.effort < most_effort("ivf_pq", segment.rows)
    assert falls_short(point, 0.99)


def test_every_list_is_searched_where_nothing_less_will_do() -> None:
    segment = Simulated(kind="ivf_flat", rows=1_000)
    segment.recall = lambda point: point.effort / most_effort("ivf_flat", 1_000)  # type: ignore[method-assign]
    assert segment.tuned(target=1.0).effort == most_effort("ivf_flat", 1_000)


def test_a_brute_force_kind_has_no_effort_to_choose() -> None:
    segment = Simulated(kind="sq8")
    segment.recall = lambda point: 0.9 if point.rescore == 1 else 1.0  # type: ignore[method-assign]
    assert segment.tuned(target=0.95) == OperatingPoint(effort=0, rescore=4, recall_at_10=1.0, queries=100)


def test_the_questions_that_choose_are_not_those_that_tell() -> None:
    queries = np.arange(200, dtype=np.float32).reshape(50, 4)
    searched: list[np.ndarray] = []
    segment = Simulated()
    plain = segment.approximate

    def approximate(batch: np.ndarray, k: int, point: OperatingPoint) -> np.ndarray:
        searched.append(batch[:, 0] / 4)
        return plain(batch, k, point)

    segment.approximate = approximate  # type: ignore[method-assign]
    point = segment.tuned(queries=queries)
    assert {int(row) % 2 for rows in searched[:-1] for row in rows} == {0}
    assert searched[-1].tolist() == list(range(1, 50, 2))
    assert point.queries == 25


@pytest.mark.parametrize("queries", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("kind", ["sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"])
def test_few_rows_and_few_questions_will_do(tmp_path: Path, kind: Kind, rows: int, queries: int) -> None:
    segment = Built(kind, unit_vectors(rows, dim=8), tmp_path)
    point = tune(segment, unit_vectors(queries, dim=8, seed=5), target=0.95)
    assert point.recall_at_10 == 1.0
    assert point.queries == max(1, queries // 2)


def test_a_passage_that_scores_as_much_as_the_last_is_a_hit() -> None:
    segment = Simulated(kind="sq8")
    segment.scores = lambda _queries, rows: np.where(rows < 0, -np.inf, 0.5)  # type: ignore[method-assign]
    segment.recall = lambda _point: 0.0  # type: ignore[method-assign]  # other rows than exact search, all as good
    assert segment.tuned().recall_at_10 == 1.0


def test_a_passage_that_was_not_found_is_no_hit() -> None:
    segment = Simulated(kind="sq8")
    segment.approximate = lambda queries, _k, _point: np.tile([0, 1, -1], (len(queries), 1))  # type: ignore[method-assign]
    assert segment.tuned().recall_at_10 == 0.2


def test_time_is_taken_with_one_thread_and_the_threads_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        segment = Simulated()
        segment.tuned()
        assert segment.threads == {1}
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]),
    st.integers(1, 10**9),
    st.floats(0.5, 1),
)
def test_the_work_is_bounded(kind: Kind, rows: int, target: float) -> None:
    segment = Simulated(kind=kind, rows=rows)
    segment.tuned(target=target)
    assert len(segment.asked) * 32 < 150 * 100  # batches of 100 questions, each measured about 150 times at most


def test_a_recall_that_is_short_by_chance_is_not_called_short() -> None:
    def point(recall: float | None, queries: int) -> OperatingPoint:
        return OperatingPoint(effort=8, rescore=1, recall_at_10=recall, queries=queries)

    assert not falls_short(point(0.94, 128), 0.95)
    assert falls_short(point(0.92, 128), 0.95)
    assert falls_short(point(0.94, 10_000), 0.95)
    assert not falls_short(point(None, 0), 0.95)
    assert not falls_short(EXACT, 1.0)
