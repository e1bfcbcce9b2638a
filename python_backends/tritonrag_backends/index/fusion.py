"""Two ranked lists to one, by reciprocal rank (Cormack, Clarke and Büttcher, SIGIR 2009), the dense one counting more."""

from typing import Final

import numpy as np
import numpy.typing as npt

# Chosen on the tuning half of perf/questions/postgresql.tsv, the best of 48 settings tried there: nDCG@10 0.721, where dense has
# 0.693, lexical 0.594, and the paper's 60 with equal weights 0.702. At this weight constants 5 to 20 and depths 20 to 100 give
# 0.712 to 0.721; at this constant and depth weights of 1, 1.5 and 3 give 0.710, 0.716 and 0.712. With 149 questions those
# differences are noise. The held-out half: docs/benchmarks/retrieval-quality.md.
RANK_CONSTANT: Final = 10
DENSE_WEIGHT: Final = 2.0
# How deep each list is read before they are fused.
FUSED: Final = 50


def fuse(
    dense: npt.NDArray[np.int64], lexical: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The k best ids of two lists INT64 [n], best first, with their scores FP32 [k].

    A score is the sum of weight / (constant + rank) over the lists that hold the id, rank from 1. Descending, ties by id.
    """
    ids = np.concatenate([dense, lexical])
    gains = np.concatenate([_gains(len(dense), DENSE_WEIGHT), _gains(len(lexical), 1.0)])
    every, places = np.unique(ids, return_inverse=True)
    scores = np.bincount(places, weights=gains, minlength=len(every)).astype(np.float32)
    order = np.lexsort((every, -scores))[:k]
    return every[order], scores[order]


def _gains(length: int, weight: float) -> npt.NDArray[np.float64]:
    return weight / (RANK_CONSTANT + np.arange(1, length + 1))
