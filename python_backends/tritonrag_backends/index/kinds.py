"""The kinds of segment: which to choose for how many rows, what each is in FAISS, how hard it is searched."""

import math
from typing import Final

import faiss

from tritonrag_backends.choices import Kind, KindChoice
from tritonrag_backends.index.format import EXACT, OperatingPoint

# CPU ms a query alone / of 32 together, recall@10 0.95 to 0.97, 384 dimensions, sentences against real passages: 20k rows flat
# 1.6 / 0.31, hnsw 0.20 / 0.11, ivf_pq 0.22 / 0.08. Up to here exact search costs no more than embedding the question.
FLAT_UP_TO: Final = 20_000
# 100k rows hnsw 0.12 / 0.10, ivf_pq 0.21 / 0.09; 1M rows hnsw 0.42 / 0.39, ivf_pq 0.69 / 0.30. A graph takes three times as long to
# build at 100k (31 CPU s) and ten times at 1M (1,000 CPU s).
HNSW_UP_TO: Final = 300_000
# FAISS goes from its own kernel to BLAS when queries x dimensions reach a threshold. BLAS over its own kernel, 384 dimensions, one
# thread: batch 1 0.1 times (10k rows), batch 4 0.5 to 0.9, batch 8 1.3 / 0.7 / 1.4 (1k / 10k / 20k rows), batch 16 1.4 to 2.4,
# batch 32 2.1 to 3.5.
BLAS_FROM_QUERIES: Final = 8

_ROWS_A_LIST: Final = 39  # the least that FAISS's k-means is content with
_MOST_EF_SEARCH: Final = 4_096
_FEW_ROWS: Final = 1_000
_MOST_EXACT_ROWS: Final = 20_000


def choose(kind: KindChoice, rows: int) -> Kind:
    """The kind of a segment with that many rows; `auto` goes by size."""
    if kind != "auto":
        return kind
    if rows <= FLAT_UP_TO:
        return "flat"
    return "hnsw" if rows <= HNSW_UP_TO else "ivf_pq"


def default_point(kind: Kind) -> OperatingPoint:
    """How to search it as long as nobody has measured; recall is None, which says so."""
    if kind == "flat":
        return EXACT
    effort, rescore = {"sq8": (0, 2), "hnsw": (64, 4), "ivf_flat": (64, 1), "ivf_sq8": (64, 2)}.get(kind, (64, 8))
    return OperatingPoint(effort=effort, rescore=rescore, recall_at_10=None, queries=0)


def use_blas_when_faster(dims: int) -> None:
    """Set FAISS's switch to BLAS, a value of the whole process, for vectors of this dimension."""
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES * dims


def faiss_name(kind: Kind, *, rows: int, dims: int) -> str:
    """What `faiss.index_factory` is to make; `flat` has no FAISS file and no name."""
    names: dict[Kind, str] = {
        "sq8": "SQ8",
        "hnsw": "HNSW16_SQ8",
        "ivf_flat": f"IVF{lists(rows)},Flat",
        "ivf_sq8": f"IVF{lists(rows)},SQ8",
        "ivf_pq": f"IVF{lists(rows)},PQ{_sub_quantizers(dims)}x4fs",
        "ivf_rabitq": f"IVF{lists(rows)},RaBitQ",
    }
    return names[kind]


def lists(rows: int) -> int:
    """Inverted lists of an ivf segment with that many rows."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // _ROWS_A_LIST))


def rescores(kind: Kind) -> tuple[int, ...]:
    """Candidates a wanted passage that are worth trying: the coarser a kind sees, the more."""
    if kind in {"ivf_pq", "ivf_rabitq"}:
        return (2, 4, 8, 16, 32)
    return (1,) if kind in {"flat", "ivf_flat"} else (1, 4)


def most_effort(kind: Kind, rows: int) -> int:
    """Above this a greater effort finds no more, or not enough to be worth it."""
    if kind == "hnsw":
        return min(rows, _MOST_EF_SEARCH)
    return lists(rows) if kind.startswith("ivf_") else 0


def probes_for_share(share: float) -> float:
    """How many times the lists to search when only this share of the rows is allowed, so that recall stays what it is.

    Allowed rows are as much rarer, 1 / share, and where they keep together (documents, topics) rarer still near a question about
    something else.
    """
    return 1 / share + min(2.0, 8 * (1 - share))


def exact_is_cheaper(rows: int, allowed: int) -> bool:
    """Whether a filter leaves so few rows that comparing with each of them is the way: exact, and about as fast.

    At 1M rows and 20,000 allowed a question takes 6 ms alone and 0.5 ms in a batch, where ivf_pq takes 1.3 to 2.4 and 0.5 to 0.8
    for the same recall; with half as many it is even. Where most rows are allowed, the index is as good as without a filter.
    """
    return allowed <= _FEW_ROWS or (allowed <= _MOST_EXACT_ROWS and allowed <= rows // 4)


def _sub_quantizers(dims: int) -> int:
    """One, of 4 bits, for 2 values of a vector, or for 3 where its dimension is odd, or for each where neither divides it."""
    return next((dims // values for values in (2, 3) if dims % values == 0), dims)
