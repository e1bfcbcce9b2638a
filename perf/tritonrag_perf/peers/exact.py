"""Exact search, which answers are held to."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
_TOGETHER: Final = 64  # questions at a time: 25 MB of scores for 100,000 passages


def best_rows(vectors: Float32Array, questions: Float32Array, k: int) -> Int64Array:
    """INT64 [q, k]: the rows of FP32 [n, dim] with the greatest inner products, best first, ties by row. k is at most n."""
    best = np.empty((len(questions), k), np.int64)
    for start in range(0, len(questions), _TOGETHER):
        scores = questions[start : start + _TOGETHER] @ vectors.T
        best[start : start + _TOGETHER] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best


def recall(found: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> float:
    """The share of `wanted` [q, k] that is in the same row of `found` [q, any]; -1 is nothing."""
    hits = sum(len(set(map(int, f)) & set(map(int, w))) for f, w in zip(found, wanted, strict=True))
    return hits / wanted.size


def same_answer(scores: Sequence[float], exact: Sequence[float], *, tolerance: float) -> bool:
    """Whether an answer is the exact one but for rounding: as many passages, and the same score at each place.

    Passages with nearly the same score may change places, so ids are not compared: those of `scores` are the passages' own exact
    scores, which a passage that doesn't belong there would not have.
    """
    return len(scores) == len(exact) and all(abs(a - b) <= tolerance for a, b in zip(scores, exact, strict=True))
