"""What a CPU core does in a second, from our own measurements (docs/benchmarks). Noisy machines: trust factors of two, no more."""

import math
from itertools import pairwise
from typing import Final

from tritonrag_backends.choices import Kind
from tritonrag_client.errors import BadRequestError

# Questions/s of one thread, 384 dimensions, recall@10 0.95 and more, by rows: the lower of "alone" and "32 together".
# docs/benchmarks/index-kinds.md (10,000 and 100,000 rows), docs/benchmarks/index-kinds-1m.md.
_SEARCHES: Final[dict[Kind, tuple[tuple[int, float], ...]]] = {
    "flat": ((10_000, 1_232), (100_000, 78)),
    "hnsw": ((10_000, 7_849), (100_000, 3_032), (1_000_000, 1_061)),
    "ivf_flat": ((10_000, 3_099), (100_000, 575), (1_000_000, 82)),
    "ivf_sq8": ((10_000, 5_104), (100_000, 957), (1_000_000, 208)),
    "ivf_pq": ((10_000, 7_559), (100_000, 1_646), (1_000_000, 741)),
    "ivf_rabitq": ((10_000, 6_040), (100_000, 1_679), (1_000_000, 498)),
}
# 32 together; where the two differ in slope, the steeper one counts beyond the last row: from 100,000 to 1,000,000 rows.
_TOGETHER: Final[dict[Kind, tuple[float, float]]] = {
    "hnsw": (3_753, 1_472),
    "ivf_flat": (807, 160),
    "ivf_sq8": (1_259, 251),
    "ivf_pq": (5_657, 1_681),
    "ivf_rabitq": (3_066, 648),
}
_MEASURED_DIMS: Final = 384
# ivf_pq at 1M, "recall and speed by effort", alone: what a higher recall costs, over the tuned point (741 at 0.9725).
_RECALL_FACTORS: Final = ((0.97, 1.0), (0.9824, 493 / 741), (0.9854, 344 / 741), (0.9873, 241 / 741), (0.99, 98 / 741))
MOST_RECALL: Final = 0.99  # ivf_pq found no more at any effort
# docs/choosing-a-kind.md: at 1M passages a question of 13 words takes 5.6 ms lexical (batches of 32, one thread); BM25 reads the
# postings of every word, so time grows with the passages.
_LEXICAL_S_A_PASSAGE: Final = 5.6e-3 / 1_000_000
# docs/benchmarks/embedder.md: one question of 5 to 40 tokens, int8, one thread, 158 a second, with all-MiniLM-L6-v2.
EMBEDDED_A_SECOND: Final = 158.0
# SmolLM2-135M-Instruct int8 on 2 cores: a prompt of 590 to 764 tokens (677) read in 2.05 s (docs/benchmarks/generation.md) is
# 2 x 106M weights of layers x 677 / 2.05 = 70 GFLOP/s; a token every 17 to 20 ms (there too) is, at 163 MB of weights
# by our formula, 8.8 GB/s, which more cores do not raise.
LLM_FLOPS_A_CORE: Final = 35e9
LLM_BYTES_S: Final = 8.8e9
# 8 clients, prompts of 170 tokens, answers of 48: 43 to 46 tokens/s (docs/benchmarks/genai-cpu.md), of 62 by those two numbers.
LLM_EFFICIENCY: Final = 0.72
# `retrieve` at 32 clients on 2 cores, the client among them (docs/benchmarks/index-kinds-served.md): 241/s of 260 at 1M passages
# with ivf_pq, 230 of 280 at 10,000 with flat, 213 of 300 at 100,000 with hnsw: 0.71 to 0.93 of what embedding and search leave.
SERVED_EFFICIENCY: Final = 0.8


def searches_a_second(kind: Kind, *, rows: int, dims: int, recall: float) -> float:
    """Dense searches of one core in a second; between measured sizes and beyond them by a power of the number of rows.

    Cost grows with the dimension in proportion; below 384 it is taken not to shrink. Raises BadRequestError where the recall is
    more than an approximate kind was seen to reach.
    """
    name: Kind = "flat" if kind == "sq8" else kind
    rate = _by_rows(name, rows) * _recall_factor(name, recall)
    return rate * min(1.0, _MEASURED_DIMS / dims)


def lexical_s(rows: int) -> float:
    """Core seconds of one question's BM25 over so many passages."""
    return rows * _LEXICAL_S_A_PASSAGE


def _by_rows(kind: Kind, rows: int) -> float:
    points = _SEARCHES[kind]
    if rows <= points[0][0]:
        return points[0][1]
    for (few, fast), (many, slow) in pairwise(points):
        if rows <= many:
            return fast * math.exp(math.log(slow / fast) / math.log(many / few) * math.log(rows / few))
    last_rows, last_rate = points[-1]
    return last_rate * math.exp(_last_slope(kind) * math.log(rows / last_rows))


def _last_slope(kind: Kind) -> float:
    """The power by which the rate falls beyond the last measured size: the steeper of alone and together; exact search -1."""
    if kind == "flat":
        return -1.0
    (_, fast), (_, slow) = _SEARCHES[kind][-2:]
    together = _TOGETHER[kind]
    return min(math.log10(slow / fast), math.log10(together[1] / together[0]))


def _recall_factor(kind: Kind, recall: float) -> float:
    if kind == "flat" or recall <= _RECALL_FACTORS[0][0]:
        return 1.0
    for (lower, fast), (higher, slow) in pairwise(_RECALL_FACTORS):
        if recall <= higher:
            return fast + (slow - fast) * (recall - lower) / (higher - lower)
    raise BadRequestError(
        f"--recall is {recall:g}; approximate search was seen to reach {MOST_RECALL:g}: take that, or 1 for exact search"
    )
