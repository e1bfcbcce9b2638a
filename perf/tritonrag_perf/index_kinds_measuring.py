"""Measuring kinds of segment on one set of vectors: building, the tuned point, and recall against speed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import faiss
import numpy as np

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.ann import Ann, Float32Array, Int64Array, build_ann
from tritonrag_backends.index.format import OperatingPoint
from tritonrag_backends.index.kinds import most_effort
from tritonrag_backends.index.tuning import tune
from tritonrag_backends.index.vectors import StoredVectors
from tritonrag_perf.spread import Spread

K = 10
ALONE, TOGETHER = 1, 32  # queries in a call
_MARGIN = 8  # candidates more than are wanted: as `index/rescoring.py` does
_OPENINGS = 5
_CURVE_STEP = 1.6  # from one effort to the next
_TOP_RECALL = 0.9995  # a curve ends here
_LEAST_RECALL = 0.5  # and begins here

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFigures:
    """One point: its recall@10 on queries that had no part in tuning, and queries per CPU second alone and 32 together."""

    point: OperatingPoint
    recall: float
    alone: Spread
    together: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFigures:
    """One kind over `rows` vectors. `curve` is points of rising effort with as many candidates as the tuned one."""

    kind: Kind
    rows: int
    build_s: float
    file_bytes: int
    open_ms: float
    tune_s: float
    tuned: PointFigures
    curve: tuple[PointFigures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: `tuning_queries` and `queries` are held out, `slice_s` is how long a speed is measured in each round."""

    kinds: tuple[Kind, ...]
    target: float
    build_threads: int
    rounds: int
    slice_s: float
    tuning_queries: Float32Array
    queries: Float32Array


class MeasuredSegment:
    """Vectors and their FAISS file, searched as a segment of an index is: candidates found, then scored exactly."""

    def __init__(self, kind: Kind, vectors: StoredVectors, ann: Ann | None, best: "ExactBest") -> None:
        self.kind: Kind = kind
        self.rows = vectors.rows
        self._vectors, self._ann, self._best = vectors, ann, best

    def exact(self, queries: Float32Array, k: int) -> Int64Array:
        """The best rows INT64 [n, k]."""
        return self._best.of(queries, k)

    def approximate(self, queries: Float32Array, k: int, point: OperatingPoint) -> Int64Array:
        """What is served at this point: rows INT64 [n, k]."""
        candidates = min(self.rows, max(k + _MARGIN, k * point.rescore))
        if self._ann is None:
            return best_of(self._vectors, queries, self._vectors.nearest(queries, min(self.rows, k + _MARGIN)), k)
        found = self._ann.find(queries, candidates=candidates, effort=point.effort)
        return best_of(self._vectors, queries, found, k)

    def scores(self, queries: Float32Array, rows: Int64Array) -> Float32Array:
        """Exact scores FP32 [n, c]."""
        return self._vectors.scores(queries, rows)

    def recall(self, queries: Float32Array, point: OperatingPoint) -> float:
        """Recall@10, where what scores as much as the tenth is a hit."""
        least = self.scores(queries, self.exact(queries, K)).min(axis=1, keepdims=True)
        found = [self.approximate(queries[i : i + TOGETHER], K, point) for i in range(0, len(queries), TOGETHER)]
        return float((self.scores(queries, np.concatenate(found)) >= least - 1e-6).mean())


class ExactBest:
    """Exact search whose answers are kept: every kind is held to the same."""

    def __init__(self, vectors: StoredVectors) -> None:
        self._vectors = vectors
        self._kept: dict[tuple[bytes, int], Int64Array] = {}

    def of(self, queries: Float32Array, k: int) -> Int64Array:
        """The best rows INT64 [n, k]."""
        key = queries.tobytes(), k
        if key not in self._kept:
            candidates = self._vectors.nearest(queries, min(self._vectors.rows, k + _MARGIN))
            self._kept[key] = best_of(self._vectors, queries, candidates, k)
        return self._kept[key]


def best_of(vectors: StoredVectors, queries: Float32Array, candidates: Int64Array, k: int) -> Int64Array:
    """The k best of candidates INT64 [n, c] by exact score, then by row."""
    order = np.lexsort((candidates, -vectors.scores(queries, candidates)), axis=1)[:, :k]
    return np.take_along_axis(candidates, order, axis=1)


def measure_kinds(values: Float32Array, folder: Path, plan: Plan, progress: Progress) -> list[KindFigures]:
    """Build, open and tune every kind, then measure the speed of all their points in interleaved rounds."""
    vectors = StoredVectors(values, None)
    best = ExactBest(vectors)
    made = []
    for kind in plan.kinds:
        progress(f"{vectors.rows:,} vectors: {kind}")
        made.append(_prepare(kind, vectors, best, folder, plan))
    progress(f"{vectors.rows:,} vectors: speed")
    speeds = _speeds(made, plan)
    return [_figures(one, speeds) for one in made]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Made:
    """A kind that was built; `recalls` holds the tuned point first."""

    segment: MeasuredSegment
    build_s: float
    file_bytes: int
    open_ms: float
    tune_s: float
    recalls: dict[OperatingPoint, float]


_Speeds = dict[tuple[Kind, OperatingPoint, int], list[float]]


def _prepare(kind: Kind, vectors: StoredVectors, best: ExactBest, folder: Path, plan: Plan) -> _Made:
    path = folder / f"{kind}.faiss"
    build_s = open_s = 0.0
    ann = None
    if kind != "flat":
        faiss.omp_set_num_threads(plan.build_threads)
        build_s = _seconds(lambda: build_ann(kind, vectors, path))
        faiss.omp_set_num_threads(1)
        open_s = median(_seconds(lambda: _open(kind, vectors, path)) for _ in range(_OPENINGS))
        ann = _open(kind, vectors, path)
    segment = MeasuredSegment(kind, vectors, ann, best)
    (
        segment.exact(plan.tuning_queries[::2], K),
        segment.exact(plan.tuning_queries[1::2], K),
    )  # not a part of tuning's time
    start = time.perf_counter()
    tuned = tune(segment, plan.tuning_queries, target=plan.target)
    tune_s = time.perf_counter() - start
    return _Made(
        segment=segment,
        build_s=build_s,
        file_bytes=path.stat().st_size if ann else 0,
        open_ms=1e3 * open_s,
        tune_s=tune_s,
        recalls={point: segment.recall(plan.queries, point) for point in (tuned, *_curve(segment, tuned, plan))},
    )


def _curve(segment: MeasuredSegment, tuned: OperatingPoint, plan: Plan) -> list[OperatingPoint]:
    """Points of rising effort between a recall that nobody wants and one that can't be bettered."""
    most, effort, points = most_effort(segment.kind, segment.rows), 2.0, list[OperatingPoint]()
    while most and effort < _CURVE_STEP * most:
        point = replace(tuned, effort=min(most, round(effort)), recall_at_10=None, queries=0)
        recall = segment.recall(plan.queries, point)
        if recall >= _LEAST_RECALL:
            points.append(point)
        if recall >= _TOP_RECALL:
            break
        effort *= _CURVE_STEP
    return points


def _speeds(made: Sequence[_Made], plan: Plan) -> _Speeds:
    """Queries per CPU second of every point, one figure a round."""
    speeds: _Speeds = {}
    for _ in range(plan.rounds):
        for one in made:
            for point in one.recalls:
                for batch in (ALONE, TOGETHER):
                    speed = _speed(one.segment, point, batch, plan)
                    speeds.setdefault((one.segment.kind, point, batch), []).append(speed)
    return speeds


def _speed(segment: MeasuredSegment, point: OperatingPoint, batch: int, plan: Plan) -> float:
    """CPU time of this thread, the only one that searches: other programs on the machine take none of it."""
    batches = [plan.queries[start : start + batch] for start in range(0, len(plan.queries) - batch + 1, batch)]
    segment.approximate(batches[-1], K, point)
    done, start, took = 0, time.thread_time(), 0.0
    while took < plan.slice_s:
        segment.approximate(batches[done % len(batches)], K, point)
        done += 1
        took = time.thread_time() - start
    return done * batch / took


def _figures(made: _Made, speeds: _Speeds) -> KindFigures:
    tuned, *curve = [
        PointFigures(
            point=point,
            recall=recall,
            alone=Spread.of(speeds[made.segment.kind, point, ALONE]),
            together=Spread.of(speeds[made.segment.kind, point, TOGETHER]),
        )
        for point, recall in made.recalls.items()
    ]
    return KindFigures(
        kind=made.segment.kind,
        rows=made.segment.rows,
        build_s=made.build_s,
        file_bytes=made.file_bytes,
        open_ms=made.open_ms,
        tune_s=made.tune_s,
        tuned=tuned,
        curve=tuple(curve),
    )


def _open(kind: Kind, vectors: StoredVectors, path: Path) -> Ann:
    return Ann.open(path, kind=kind, rows=vectors.rows, dims=vectors.dims)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
