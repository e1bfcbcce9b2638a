"""How hard an approximate index on a device is searched: measured when it is built there, with rows of the segment as questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tritonrag_backends.index.ann import Float32Array, Int64Array, VectorSource
from tritonrag_backends.index.format import OperatingPoint
from tritonrag_backends.index.gpu.device import Builder, DeviceKind, Rows, Shape
from tritonrag_backends.index.gpu.finder import MOST_WALKED, Finder
from tritonrag_backends.index.gpu.shapes import MEASURED_ROWS

_QUESTIONS: Final = 256
_K: Final = 10
_LEAST_WALKED: Final = 64
_LEAST_PROBED: Final = 8
_MOST_RESCORED: Final = 64
_SAME: Final = 1e-5  # the last bits of a device's scores and of NumPy's


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """All rows of a segment, as the finder takes a selection."""

    rows: int
    bitmap: None = None

    @property
    def count(self) -> int:
        """All."""
        return self.rows


def measured(
    finder: Finder, vectors: VectorSource, builder: Builder, *, point: OperatingPoint, probes: bool, target: float
) -> OperatingPoint:
    """The least effort that reaches recall@10 `target`, else the greatest, with the recall that it reached.

    The questions are rows of the segment, spread evenly, each without itself; what is right is told by a flat index that `builder`
    makes of some rows at a time. `point` is that of the segment on the disk; where its effort counts `probes`, no less is chosen.
    Raises one of DEVICE_FAILURES.
    """
    sample = np.unique(np.linspace(0, vectors.rows - 1, _QUESTIONS).astype(np.int64))
    questions = vectors.take(sample)
    right = _exactly(vectors, builder, questions, sample)
    best = None
    for tried in _points(finder.kind, _most(finder), point if probes else None):
        recall = _recall(finder.at(tried), vectors, questions, sample, right)
        reached = OperatingPoint(
            effort=tried.effort, rescore=tried.rescore, recall_at_10=round(recall, 4), queries=len(sample)
        )
        if recall >= target:
            return reached
        if best is None or recall > (best.recall_at_10 or 0):
            best = reached
    assert best is not None  # noqa: S101 - there is at least one point
    return best


def _points(kind: DeviceKind, most: int, from_disk: OperatingPoint | None) -> Iterator[OperatingPoint]:
    """What to try, the cheapest first: wider searches, then more candidates re-scored where codes are coarse."""
    rescore = 1
    if kind == "ivf_pq":
        rescore = 8 if from_disk is None else max(1, from_disk.rescore)
    least = _LEAST_WALKED if kind == "cagra" else _LEAST_PROBED
    effort = min(most, least if from_disk is None or kind == "cagra" else max(1, from_disk.effort))
    while True:
        yield OperatingPoint(effort=effort, rescore=rescore, recall_at_10=None, queries=0)
        if effort == most:
            break
        effort = min(most, 2 * effort)
    while kind == "ivf_pq" and rescore < _MOST_RESCORED:
        rescore = min(_MOST_RESCORED, 2 * rescore)
        yield OperatingPoint(effort=most, rescore=rescore, recall_at_10=None, queries=0)


def _most(finder: Finder) -> int:
    if finder.kind == "cagra":
        return MOST_WALKED
    return min(max(part.shape.lists for part in finder.parts), *(part.most for part in finder.parts))


def _exactly(vectors: VectorSource, builder: Builder, questions: Float32Array, sample: Int64Array) -> Float32Array:
    """The score FP32 [n] of the 10th best row but the question's own, or of the last where there are fewer."""
    best = np.full((len(questions), 0), -np.inf, np.float32)
    for start in range(0, vectors.rows, MEASURED_ROWS):
        part = Rows(vectors, start, min(start + MEASURED_ROWS, vectors.rows))
        shape = Shape(kind="flat", rows=part.rows, dims=part.dims, fp16=False)
        index = builder.build(shape, part)
        try:
            scores, rows = index.search(questions, min(_K + 1, part.rows), effort=0, allowed=None)
        finally:
            index.close()
        others = np.where(rows + start == sample[:, None], -np.inf, scores)
        best = -np.sort(-np.concatenate([best, others], axis=1), axis=1)[:, :_K]
    return np.asarray(np.where(np.isfinite(best), best, np.inf).min(axis=1), np.float32)


def _recall(
    finder: Finder, vectors: VectorSource, questions: Float32Array, sample: Int64Array, right: Float32Array
) -> float:
    """The share of the 10 best that are among the candidates: re-scored exactly, they are found."""
    k = min(_K, vectors.rows - 1)
    proposed = finder.find(questions, k * finder.point.rescore + 1, All(vectors.rows))
    if proposed is None:
        raise RuntimeError(finder.trouble)
    rows = np.where(proposed.rows == sample[:, None], -1, proposed.rows)
    hits = 0
    for question, found, least in zip(questions, rows, right, strict=True):
        scores = vectors.take(found[found >= 0]) @ question
        hits += min(k, int(np.count_nonzero(scores >= least - _SAME)))
    return hits / (k * len(questions))
