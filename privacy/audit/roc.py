"""How well an attack's scores tell members from others: area, rate at few false alarms, intervals.

Shapes: M models attacked, N records; every model has its own members.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["area_under_curve", "interval", "true_positive_rate"]

Statistic = Callable[[np.ndarray, np.ndarray], float]


def area_under_curve(scores: np.ndarray, members: np.ndarray) -> float:
    """Return P[member's score > other's] + P[equal] / 2, in [0, 1]; one half is chance.

    Parameters
    ----------
    scores : ndarray
        Any shape, higher where membership is more likely.
    members : ndarray
        Bool, same shape.

    Raises
    ------
    ValueError
        If there is no member, or nobody else.
    """
    inside, outside = _split(scores, members)
    ordered = np.sort(outside)
    lower = np.searchsorted(ordered, inside, side="left")
    equal = np.searchsorted(ordered, inside, side="right") - lower
    return float((lower + equal / 2).sum() / (len(inside) * len(outside)))


def true_positive_rate(
    scores: np.ndarray, members: np.ndarray, false_positive_rate: float = 0.05
) -> float:
    """Return the share of members above a threshold that at most such a share of others exceed.

    Raises
    ------
    ValueError
        If there is no member, or nobody else, or the rate is outside [0, 1).
    """
    if not 0 <= false_positive_rate < 1:
        raise ValueError(f"the rate of false positives {false_positive_rate} must be in [0, 1)")
    inside, outside = _split(scores, members)
    allowed = int(np.floor(false_positive_rate * len(outside) + 1e-9))
    threshold = np.sort(outside)[len(outside) - 1 - allowed]
    return float((inside > threshold).mean())


def interval(
    statistic: Statistic,
    scores: np.ndarray,
    members: np.ndarray,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 500,
) -> tuple[float, float]:
    """Return a percentile bootstrap interval, records resampled with all their models' scores.

    A record that is easily told in one model is easily told in the next, so the M N scores are not
    as many independent ones.

    Parameters
    ----------
    scores, members : ndarray
        (M, N) or (N,).
    """
    values, inside = np.atleast_2d(scores), np.atleast_2d(members)
    number = values.shape[1]
    found = []
    for _ in range(resamples):
        rows = rng.integers(number, size=number)
        chosen = inside[:, rows]
        # A resample without a member, or without anybody else, has no curve.
        if chosen.any() and not chosen.all():
            found.append(statistic(values[:, rows], chosen))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _split(scores: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = scores[members], scores[~members]
    if not len(inside) or not len(outside):
        raise ValueError(
            f"{len(inside)} members and {len(outside)} others: an attack is judged by both"
        )
    return inside, outside
