"""How sure a mean over questions is: percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

Questions are drawn with replacement. Columns share the draws, so the difference of two modes is a column like any other: paired.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
_DRAWN_AT_ONCE = 2**22  # counts that are in memory together: 32 MiB
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over questions and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def leaves_0_out(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.low > _ROUNDING or self.high < -_ROUNDING


def estimates(values: Float64Array, *, seed: int, resamples: int = RESAMPLES) -> list[Estimate]:
    """An estimate for each column of FP64 [questions, columns]; at least one question. The same seed gives the same ones."""
    lows, highs = _interval(_resampled_means(values, seed, resamples))
    return [  # rounding must not put a mean that never varies outside its interval
        Estimate(mean=float(mean), low=float(min(low, mean)), high=float(max(high, mean)))
        for mean, low, high in zip(values.mean(axis=0), lows, highs, strict=True)
    ]


def ratio_estimate(
    values: Float64Array, baseline: Float64Array, *, seed: int, resamples: int = RESAMPLES
) -> Estimate | None:
    """The mean of `values` over that of `baseline`, FP64 [questions] each, none negative: one question's in one place, so paired.

    None where the baseline's mean is 0: there is no ratio.
    """
    if baseline.mean() == 0:
        return None
    means = _resampled_means(np.column_stack([values, baseline]), seed, resamples)
    means = means[means[:, 1] > 0]  # a draw of nothing but questions where the baseline is 0 has no ratio
    ratio = float(values.mean() / baseline.mean())
    low, high = _interval(means[:, 0] / means[:, 1])
    return Estimate(mean=ratio, low=float(min(low, ratio)), high=float(max(high, ratio)))


def _interval(resampled: Float64Array) -> Float64Array:
    """FP64 [2, ...]: what leaves half of the rest below, and above."""
    tail = 100 * (1 - CONFIDENCE) / 2
    interval: Float64Array = np.percentile(resampled, (tail, 100 - tail), axis=0)
    return interval


def _resampled_means(values: Float64Array, seed: int, resamples: int) -> Float64Array:
    """FP64 [resamples, columns]: means over questions drawn with replacement."""
    rng, questions = np.random.default_rng(seed), len(values)
    even = np.full(questions, 1 / questions)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _DRAWN_AT_ONCE // questions)
    for start in range(0, resamples, step):
        part = means[start : start + step]
        part[:] = rng.multinomial(questions, even, size=len(part)) @ values / questions
    return means
