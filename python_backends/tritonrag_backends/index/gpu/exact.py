"""Exact search with the help of a device that compares with every row, in FP32 or FP16: its candidates are scored exactly, and are
widened until no row that it left out can be among the best.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.ann import Float32Array, Int64Array
from tritonrag_backends.index.gpu.finder import Finder, Proposed, Wanted
from tritonrag_backends.index.vectors import StoredVectors

# Candidates beyond those wanted, by how exact the device is, so that one look is mostly enough.
_MARGIN: Final = 8
_MARGIN_FP16: Final = 32
_FINE: Final = 1e-4
# To look four times as far costs a GPU next to nothing, and is not often needed; the CPU, in the end, compares with every row.
_WIDENING: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Best:
    """The best k rows for n questions: INT64, exact scores FP32 [n, k], by score, then by row; right where `certain` BOOL [n]."""

    rows: Int64Array
    scores: Float32Array
    certain: npt.NDArray[np.bool_]


def search_exactly(finder: Finder, vectors: StoredVectors, queries: Float32Array, k: int, selection: Wanted) -> Best:
    """The best k selected rows for each of FP32 [n, dims], k at most what is selected.

    Whoever asks compares on the CPU what is not `certain`: where a device failed, returned what it must not have, scored rows
    otherwise than it may, or where too many rows are tied.
    """
    rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
    certain = np.zeros(len(queries), np.bool_)
    pending = np.arange(len(queries))
    most = min(selection.count, finder.most)
    wanted = min(k + (_MARGIN if finder.error < _FINE else _MARGIN_FP16), most)
    while finder.suits(max(wanted, k), selection):
        proposed = finder.find(queries[pending], wanted, selection)
        if proposed is None:
            break
        best, open_still = _settled(finder.error, vectors, queries[pending], k, proposed)
        done = pending[best.certain]
        rows[done], scores[done], certain[done] = best.rows[best.certain], best.scores[best.certain], True
        pending = pending[open_still]
        if len(pending) == 0 or wanted == most:
            break
        wanted = min(_WIDENING * wanted, most)
    return Best(rows=rows, scores=scores, certain=certain)


def _settled(
    error: float, vectors: StoredVectors, queries: Float32Array, k: int, proposed: Proposed
) -> tuple[Best, npt.NDArray[np.bool_]]:
    """The best of what was proposed, certain where no other row can be as good; and for which questions, BOOL [n], a wider look
    may make it so: not for those whose scores, or rows, are not what a device may return.
    """
    exact = vectors.scores(queries, proposed.rows)
    there = proposed.rows >= 0
    off = np.abs(np.where(there, exact, 0) - np.where(there, proposed.scores, 0))
    sound = (off <= error).all(axis=1) & (proposed.bounds < np.inf)
    order = np.lexsort((proposed.rows, -exact), axis=1)[:, :k]
    rows, scores = np.take_along_axis(proposed.rows, order, axis=1), np.take_along_axis(exact, order, axis=1)
    if rows.shape[1] < k:
        certain = np.zeros(len(queries), np.bool_)
    else:
        certain = sound & (rows[:, -1] >= 0) & (scores[:, -1] > proposed.bounds + error)
    return Best(rows=rows, scores=scores, certain=certain), sound & ~certain
