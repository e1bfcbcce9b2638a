"""Whether two small samples differ, and by what ratio: exact, without a distribution assumed and without random numbers.

Swapping the samples leaves p as it is and turns the ratio over, exactly.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from tritonrag_client.errors import BadRequestError


def mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney test, exact over all ways to divide the values, ties by midranks. Takes n*m*(n+m) steps.

    Source: Mann and Whitney 1947; p is the share of divisions whose rank sum is as far from the mean as the one seen, or farther.
    """
    if not first or not second:
        raise BadRequestError("a test needs a round on each side; measure again")
    ranks = _doubled_midranks([*first, *second])
    ways = _ways(ranks, len(first))
    centre = len(first) * (len(ranks) + 1)  # the mean of the doubled rank sum
    seen = abs(sum(ranks[: len(first)]) - centre)
    extreme = sum(count for total, count in ways.items() if abs(total - centre) >= seen)
    return extreme / math.comb(len(ranks), len(first))


def _doubled_midranks(values: Sequence[float]) -> list[int]:
    """Each value's rank, 1 for the least, times two: whole numbers even where equal values share the mean of their ranks."""
    below, doubled = 0, {}
    for value, count in sorted(Counter(values).items()):
        doubled[value] = 2 * below + count + 1
        below += count
    return [doubled[value] for value in values]


def _ways(ranks: Sequence[int], size: int) -> Counter[int]:
    """How many subsets of that size have each sum."""
    by_size: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in range(size))]
    for rank in ranks:
        for taken in range(size, 0, -1):
            for total, count in by_size[taken - 1].items():
                by_size[taken][total + rank] += count
    return by_size[size]


def log_ratios(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """Natural logarithms of new/old over all pairs: least, median (Hodges and Lehmann 1963), greatest. Values above 0."""
    if min((*old, *new), default=0.0) <= 0:
        raise BadRequestError("a figure is 0 or less, which no ratio can be made of; is the record whole?")
    logs = [math.log(b) - math.log(a) for a in old for b in new]
    return min(logs), median(logs), max(logs)
