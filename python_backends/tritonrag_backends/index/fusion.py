"""Two ranked lists to one, by reciprocal rank (Cormack, Clarke and Büttcher, SIGIR 2009), the dense one counting more."""

from typing import Final

import numpy as np
import numpy.typing as npt

# Chosen on the tuning half of perf/questions/postgresql.tsv, where nDCG@10 is 0.693 dense and 0.594 lexical: 0.721 with these. The
# paper's 60 and equal weights, 0.702; constants 5 to 20 and depths 20 to 100 are all within 0.005 of it at this weight, weights of
# 1.5 and 3 within 0.01. The held-out half: docs/benchmarks/retrieval-quality.md.
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
