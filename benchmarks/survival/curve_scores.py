"""C_td and IBS of predicted survival curves: from mergeable sums, and from other people's code."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pycox.evaluation.concordance import concordance_td
from sksurv.metrics import brier_score
from sksurv.util import Surv

from protocol.stats import LifeTable
from protocol.stats.brier import BrierSums
from protocol.stats.censoring import CensoringCurve
from protocol.stats.timed_pairs import antolini_pairs

HORIZONS = 100
Curves = Callable[[np.ndarray], np.ndarray]
"""S at some months, (N, M)."""


@dataclass(frozen=True)
class Scores:
    """Antolini's C_td (higher is better) and the integrated Brier score (lower is better).

    ``weighted_ibs`` divides by the sum of the weights, as pycox does, and not by the number of
    patients, which that sum estimates: ``nan`` where it was not computed.
    """

    c_td: float
    ibs: float
    weighted_ibs: float = math.nan


def horizons(months: np.ndarray) -> np.ndarray:
    """Return equidistant times inside the test patients' follow-up, as in pycox's notebooks.

    They take both ends as well, where no Brier score is defined: nobody is left after the last.
    """
    return np.linspace(months.min(), months.max(), HORIZONS + 2)[1:-1]


def from_sums(months: np.ndarray, event: np.ndarray, curves: Curves) -> Scores:
    """Return both from the sums that a hospital would send.

    The grid holds every time of the test patients, which makes the sums exact and comparable with
    the references; in a study it is the common grid.
    """
    points = horizons(months)
    times = tuple(np.unique(months))
    pairs = antolini_pairs(
        months,
        event,
        curves(np.array(times)),
        grid_months=times,
        tau_months=times[-1] + 1,
    )
    grid = tuple(np.unique(np.concatenate(([0.0], months, points))))
    table = LifeTable.of(
        months, event, np.zeros(len(months), int), grid_months=grid, names=("all",)
    )
    brier = BrierSums.of(
        months,
        event,
        curves(points),
        horizons_months=tuple(points),
        censoring=CensoringCurve.from_table(table),
    )
    weighted = brier.squares / (brier.case_weight + brier.control_weight)
    return Scores(pairs.value, brier.integrated(), _mean_over(points, weighted))


def from_references(months: np.ndarray, event: np.ndarray, curves: Curves) -> Scores:
    """Return pycox's C_td ('antolini') and scikit-survival's Brier scores, by the trapezoid."""
    points = horizons(months)
    times, place = np.unique(months, return_inverse=True)
    survival = np.ascontiguousarray(curves(times).T)
    c_td = concordance_td(months, event.astype(int), survival, place, method="antolini")
    observed = Surv.from_arrays(event == 1, months)
    _, scores = brier_score(observed, observed, curves(points), points)
    return Scores(float(c_td), _mean_over(points, scores))


def _mean_over(points: np.ndarray, scores: np.ndarray) -> float:
    area = ((scores[1:] + scores[:-1]) / 2 * np.diff(points)).sum()
    return float(area / (points[-1] - points[0]))
