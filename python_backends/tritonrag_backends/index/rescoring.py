"""Candidates, whoever found them, held to the selection and scored exactly: the last step of every search by vectors."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from tritonrag_backends.index.selection import Selection
from tritonrag_backends.index.vectors import Float32Array, Int64Array, StoredVectors

# Rows INT64 [n, k] and exact scores FP32 [n, k], by score, then by row.
Found = tuple[Int64Array, Float32Array]
# So many rows, or a few more, that may be among the best, INT64 [n, c], -1 for none; None: nothing at all can be said.
Candidates = Callable[[int], Int64Array | None]

# More candidates than are wanted, because FAISS's scores differ in their last bits from batch to batch (BLAS or not) and those of
# two near passages may swap: re-scored, the same question has the same answer alone and in any batch.
_MARGIN: Final = 8
_DOUBLINGS: Final = 3
_NEAR: Final = 1e-5


def rescored(
    vectors: StoredVectors,
    queries: Float32Array,
    k: int,
    selection: Selection,
    find: Candidates,
    *,
    rescore: int = 1,
) -> Found | None:
    """The best k by exact score of `rescore` times as many candidates, twice as many where the cut goes through a tie.

    k is at most what is selected. A query of FP32 [n, dims] for which fewer were found, or any that must not be seen, is compared
    with every selected row. None where `find` says None.
    """
    wanted = max(k + _MARGIN, k * rescore)
    for _ in range(_DOUBLINGS + 1):
        wanted = min(wanted, selection.count)
        candidates = find(wanted)
        if candidates is None:
            return None
        short = _fall_short(candidates, k, selection)
        if short.any():
            candidates = _replaced(candidates, short, vectors.nearest(queries[short], wanted, selection.allowed))
        scores = vectors.scores(queries, candidates)
        order = np.lexsort((candidates, -scores), axis=1)
        each = np.arange(len(order))[:, None]
        rows, scores = candidates[each, order], scores[each, order]
        if wanted == selection.count or not _tied_at_the_cut(scores, k):
            break
        wanted *= 2
    return rows[:, :k], scores[:, :k]


def found_at_all(found: Found | None) -> Found:
    """What was found by a `find` that never says None."""
    assert found is not None  # noqa: S101 - so it is promised
    return found


def _replaced(candidates: Int64Array, short: npt.NDArray[np.bool_], nearest: Int64Array) -> Int64Array:
    """The candidates with other rows, INT64 [m, wanted], for the m queries that fell short."""
    columns = max(candidates.shape[1], nearest.shape[1])
    whole = np.full((len(candidates), columns), -1, np.int64)
    whole[:, : candidates.shape[1]] = candidates
    whole[short, : nearest.shape[1]] = nearest
    whole[short, nearest.shape[1] :] = -1
    return whole


def _fall_short(candidates: Int64Array, k: int, selection: Selection) -> npt.NDArray[np.bool_]:
    """Which queries got fewer than k candidates, or one that they must not see; BOOL [n]."""
    found = candidates >= 0
    short = np.asarray(found.sum(axis=1) < k, np.bool_)
    if selection.allowed is not None:
        short |= (found & ~selection.allowed[candidates]).any(axis=1)
    return short


def _tied_at_the_cut(scores: Float32Array, k: int) -> bool:
    """Whether a row that was not even a candidate could score as much as the k-th: then it might have the lower id."""
    return bool(np.any(scores[:, -1] > scores[:, k - 1] - _NEAR))
