"""What grows: a line through samples that forgives outliers, and how sure it is.

Theil-Sen: the slope is the median of the slopes between any two samples, its interval that of P. K. Sen (Estimates of the
regression coefficient based on Kendall's tau, 1968), which takes samples for independent of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tritonrag_client.errors import BadRequestError

_Z: Final = 1.96  # an interval of 95 %
FEWEST: Final = 8  # with fewer samples the interval is the whole range of slopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Growth an hour, with the ends of its 95 % interval; `level` is the median of the samples.

    `grown` is what the line rose by while it was watched, `tolerance` what it may have risen by and still be called flat.
    """

    level: float
    per_hour: float
    low_per_hour: float
    high_per_hour: float
    grown: float
    tolerance: float

    @property
    def grows(self) -> bool:
        """Whether it surely rises, and by more than the tolerance."""
        return self.low_per_hour > 0 and self.grown > self.tolerance

    @property
    def verdict(self) -> str:
        """In a word."""
        return "grows" if self.grows else "flat"


def fit(hours: Sequence[float], values: Sequence[float], *, tolerance: float, share: float = 0.0) -> Trend:
    """The trend of samples at these times; `share` of the level is tolerated where it is more than `tolerance`.

    Raises BadRequestError for too few samples.
    """
    if len(hours) < FEWEST:
        raise BadRequestError(
            f"there are {len(hours)} samples after the warm-up; measure longer, {FEWEST} are the fewest"
        )
    x, y = np.asarray(hours, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] - x[first]
    slopes = np.sort((y[second] - y[first])[apart > 0] / apart[apart > 0])
    low, high = _interval(slopes, len(x))
    slope, level = float(np.median(slopes)), float(np.median(y))
    return Trend(
        level=level,
        per_hour=slope,
        low_per_hour=low,
        high_per_hour=high,
        grown=slope * float(x[-1] - x[0]),
        tolerance=max(tolerance, share * level),
    )


def _interval(slopes: np.ndarray, samples: int) -> tuple[float, float]:  # type: ignore[type-arg]  # FP64 [n]
    """The ranks of the slopes between which the true one lies, by the variance of Kendall's tau."""
    spread = _Z * (samples * (samples - 1) * (2 * samples + 5) / 18) ** 0.5
    low = max(0, int((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, int((len(slopes) + spread) / 2) + 1)
    return float(slopes[low]), float(slopes[high])
