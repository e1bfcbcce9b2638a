"""The search effort of a segment, chosen by measuring: the fastest that reaches the wanted recall on held-out queries."""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tritonrag_backends.choices import Kind
from tritonrag_backends.index.ann import Float32Array, Int64Array, faiss_threads
from tritonrag_backends.index.format import EXACT, OperatingPoint
from tritonrag_backends.index.kinds import default_point, most_effort, rescores

Clock = Callable[[], float]

_LEAST_EF_SEARCH: Final = 16
_STEP: Final = 1.2  # from one effort to the next
_BATCH: Final = 32  # queries searched together, as under load
# Points whose first time was near the best are timed again, and are equally fast where times differ by no more than noise.
_NEAR: Final = 1.5
_REPEATS: Final = 3
_ALIKE: Final = 1.1
_SAME_SCORE: Final = 1e-6
# The least point that passes has passed by luck more often than not: with one standard error above the target, the other half of
# the queries found it missed in one case of four (1.4 standard errors lie between two halves), with two in one of twelve.
_ERRORS: Final = 2


class Tunable(Protocol):
    """A segment whose effort is to be chosen; all of its rows are searched."""

    kind: Kind
    rows: int

    def exact(self, queries: Float32Array, k: int) -> Int64Array:
        """The best rows for each of FP32 [n, dims] by their stored vectors, INT64 [n, k]; k is at most `rows`."""

    def approximate(self, queries: Float32Array, k: int, point: OperatingPoint) -> Int64Array:
        """What is served at this point, found and re-scored: rows INT64 [n, k], -1 for none."""

    def scores(self, queries: Float32Array, rows: Int64Array) -> Float32Array:
        """Exact scores FP32 [n, c] of rows INT64 [n, c]; -inf for row -1."""


def tune(
    segment: Tunable, queries: Float32Array, *, target: float, k: int = 10, clock: Clock = time.thread_time
) -> OperatingPoint:
    """The fastest point that reaches recall@k `target`, else the one with the best recall.

    `queries` are FP32 [n, dims], none of them in the index. One half of them chooses the point, which must reach the target by more
    than two standard errors; the recall that is told was reached on the other. Both halves hold as many hard queries: they are
    dealt by the score of the k-th hit, since what is far from everything is found worst. What is fastest goes by the CPU time of
    one thread, so that a busy machine misleads it little; `clock` tells it in seconds.
    """
    if segment.kind == "flat":
        return EXACT
    if not len(queries):
        return default_point(segment.kind)
    chooses, tells = _Yardstick.of(segment, queries, k).halves()
    with faiss_threads(1):  # as many as an instance has when it serves
        point = _Grid(segment, chooses, target, clock).best()
        recall = float(tells.recalls(segment, _found(segment, tells, point)).mean())
    return replace(point, recall_at_10=round(recall, 4), queries=len(tells.queries))


def falls_short(point: OperatingPoint, target: float) -> bool:
    """Whether the recall that was reached is below the target by more than the draw of the queries explains: a standard error."""
    if point.recall_at_10 is None or point.queries == 0:
        return False
    return point.recall_at_10 < target - math.sqrt(target * (1 - target) / point.queries)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Yardstick:
    """Queries FP32 [n, dims], and the score FP32 [n] of the last row of exact search: a row that scores as much is a hit too."""

    queries: Float32Array
    least: Float32Array
    k: int

    @classmethod
    def of(cls, segment: Tunable, queries: Float32Array, k: int) -> "_Yardstick":
        k = min(k, segment.rows)
        queries = np.ascontiguousarray(queries)
        least = segment.scores(queries, segment.exact(queries, k)).min(axis=1)
        return cls(queries=queries, least=least, k=k)

    def halves(self) -> "tuple[_Yardstick, _Yardstick]":
        """Two of them, with every other query by `least`; of a single query twice the same."""
        order = np.argsort(self.least, kind="stable")
        one, other = order[::2], order[1::2] if len(order) > 1 else order
        return self._of(one), self._of(other)

    def _of(self, places: Int64Array) -> "_Yardstick":
        return _Yardstick(queries=self.queries[places], least=self.least[places], k=self.k)

    def recalls(self, segment: Tunable, rows: Int64Array) -> npt.NDArray[np.float64]:
        """The recall of each query, FP64 [n], that found rows INT64 [n, k] make."""
        hits = segment.scores(self.queries, rows) >= self.least[:, None] - _SAME_SCORE
        return np.asarray(hits.sum(axis=1) / self.k, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What a point came to; `surely` is its recall less what the draw of the queries may be to blame for."""

    recall: float
    surely: float
    seconds: float


class _Grid:
    """The points of a kind: efforts, and candidates to be re-scored. More of either finds no less."""

    def __init__(self, segment: Tunable, yardstick: _Yardstick, target: float, clock: Clock) -> None:
        self._segment, self._yardstick, self._target, self._clock = segment, yardstick, target, clock
        self._efforts = _efforts(segment.kind, segment.rows)
        self._measured: dict[OperatingPoint, _Measured] = {}

    def best(self) -> OperatingPoint:
        """The fastest point that reaches the target; where none does, the one with the best recall, and of those the least."""
        enough = list(self._enough())
        return self._fastest(enough) if enough else min(self._measured, key=self._shortfall)

    def _enough(self) -> Iterator[OperatingPoint]:
        """For each number of candidates the least effort that is enough, if that is less than with fewer candidates."""
        efforts: Sequence[int] = self._efforts
        for rescore in rescores(self._segment.kind):
            points = [
                OperatingPoint(effort=effort, rescore=rescore, recall_at_10=None, queries=0) for effort in efforts
            ]
            least = bisect_left(points, True, key=self._reaches)
            if least < len(points):
                yield points[least]
                efforts = efforts[:least]

    def _reaches(self, point: OperatingPoint) -> bool:
        return self._measure(point).surely >= self._target

    def _measure(self, point: OperatingPoint) -> _Measured:
        if point not in self._measured:
            rows, seconds = self._timed(point)
            recalls = self._yardstick.recalls(self._segment, rows)
            error = float(recalls.std()) / math.sqrt(len(recalls))
            recall = float(recalls.mean())
            self._measured[point] = _Measured(recall=recall, surely=recall - _ERRORS * error, seconds=seconds)
        return self._measured[point]

    def _timed(self, point: OperatingPoint) -> tuple[Int64Array, float]:
        before = self._clock()
        rows = _found(self._segment, self._yardstick, point)
        return rows, self._clock() - before

    def _fastest(self, points: Sequence[OperatingPoint]) -> OperatingPoint:
        """Of points that are alike the first, the one with the fewest candidates."""
        near = _within(points, [self._measured[point].seconds for point in points], _NEAR)
        if len(near) == 1:
            return near[0]
        rounds = [[self._timed(point)[1] for point in near] for _ in range(_REPEATS)]
        return _within(near, [median(times) for times in zip(*rounds, strict=True)], _ALIKE)[0]

    def _shortfall(self, point: OperatingPoint) -> tuple[float, int, int]:
        return -round(self._measured[point].recall, 3), point.effort, point.rescore


def _within(points: Sequence[OperatingPoint], seconds: Sequence[float], factor: float) -> list[OperatingPoint]:
    """The points that take no longer than `factor` times the shortest."""
    return [point for point, took in zip(points, seconds, strict=True) if took <= factor * min(seconds)]


def _found(segment: Tunable, yardstick: _Yardstick, point: OperatingPoint) -> Int64Array:
    batches = [yardstick.queries[start : start + _BATCH] for start in range(0, len(yardstick.queries), _BATCH)]
    return np.concatenate([segment.approximate(batch, yardstick.k, point) for batch in batches])


def _efforts(kind: Kind, rows: int) -> list[int]:
    """Efforts, each about a fifth above the last, up to the greatest that makes sense."""
    most = most_effort(kind, rows)
    efforts = [min(most, _LEAST_EF_SEARCH if kind == "hnsw" else 1)]
    while efforts[-1] < most:
        efforts.append(min(most, max(efforts[-1] + 1, round(efforts[-1] * _STEP))))
    return efforts
