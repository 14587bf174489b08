"""Intervals from bootstrap replicates of a statistic, the same for every statistic that has them.

References
----------
Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 6 and 13.
"""

import math

import numpy as np

from protocol.stats.sums import FloatArray

__all__ = ["percentile_interval", "replicate_error"]


def replicate_error(values: FloatArray) -> float:
    """Return the standard deviation of the replicates (R,); nan below two of them."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def percentile_interval(values: FloatArray, level: float) -> tuple[float, float]:
    """Return the limits between which ``level`` of the replicates (R,) lie; nan below two."""
    if len(values) < 2:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
