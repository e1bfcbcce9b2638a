"""The measures of a ranking, question by question, as trec_eval computes them (through the library pytrec-eval-terrier).

recall@k   the share of the relevant documents that is among the first k
MRR@10     1 / rank of the first relevant document, 0 where none is among the first 10
nDCG@10    the gain of the first 10 over that of the best possible 10: a document's grade / log2(rank + 1), summed
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from tritonrag_client.errors import BadRequestError

TOP = 10  # the depth of MRR and nDCG, and of the documents that a record shows
MOST_CUTOFF = 1000

Float64Array = npt.NDArray[np.float64]


def require_pytrec_eval() -> None:
    """Raises BadRequestError where the library is not installed: better before the searching than after it."""
    if find_spec("pytrec_eval") is None:
        raise BadRequestError(
            "measuring needs pytrec-eval-terrier, which is not installed; `pip install 'tritonrag[perf]'`"
        )


def names_of(cutoffs: Sequence[int]) -> tuple[str, ...]:
    """The measures, in the order of the columns of `evaluate`."""
    return (*(f"recall@{cutoff}" for cutoff in cutoffs), f"MRR@{TOP}", f"nDCG@{TOP}")


def evaluate(
    grades: Sequence[Mapping[str, int]], rankings: Sequence[Sequence[str]], *, cutoffs: Sequence[int]
) -> Float64Array:
    """FP64 [questions, measures], each from 0 to 1.

    `grades` are each question's relevant documents, `rankings` each question's documents, best first and no one twice.
    """
    if not grades:
        return np.empty((0, len(names_of(cutoffs))))
    from pytrec_eval import RelevanceEvaluator  # noqa: PLC0415 - an extra, wanted only here

    qrels = {str(number): dict(relevant) for number, relevant in enumerate(grades)}
    whole = RelevanceEvaluator(qrels, {f"recall_{cutoff}" for cutoff in cutoffs} | {f"ndcg_cut_{TOP}"})
    top = RelevanceEvaluator(qrels, {"recip_rank"})  # it has no cutoff of its own: the ranking is cut instead
    found = whole.evaluate(_run(rankings))
    first = top.evaluate(_run([ranking[:TOP] for ranking in rankings]))
    keys = (*(f"recall_{cutoff}" for cutoff in cutoffs), "recip_rank", f"ndcg_cut_{TOP}")
    return np.array([[(found[number] | first[number])[key] for key in keys] for number in qrels])


def _run(rankings: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """A run as the library takes it. It ranks by score, and by id where scores are equal, which they never are here."""
    return {
        str(number): {document: float(-rank) for rank, document in enumerate(ranking)}
        for number, ranking in enumerate(rankings)
    }
