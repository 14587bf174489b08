"""Net benefit of acting on a predicted risk, from life tables of bands of risk.

At threshold p the model says to treat those with predicted risk >= p. Their share is P and their
observed risk by the horizon F = 1 - Kaplan-Meier; a false positive costs p / (1 - p) true ones:

    net benefit = P F - P (1 - F) p / (1 - p)

(Vickers et al., BMC Med Inform Decis Mak 2008;8:53). Treating all is the same with everybody,
treating none is 0. Hospitals send a `LifeTable` with one group a band between thresholds.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.stats.histogram import risk_group
from protocol.stats.kaplan_meier import kaplan_meier
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import FloatArray, require

__all__ = ["DecisionCurve", "band_table", "decision_curve"]

MAX_THRESHOLDS = 100


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per threshold; higher is better, at most the observed risk.

    Attributes
    ----------
    thresholds : float array (T,)
        Probabilities in (0, 1).
    model, treat_all : float array (T,)
        Net benefit in true positives a patient; treating none has 0. nan where Kaplan-Meier does
        not reach the horizon.
    num_treated : float array (T,)
        Patients with predicted risk at or above the threshold.
    num_patients : float
        All patients in the table.
    """

    thresholds: FloatArray
    model: FloatArray
    treat_all: FloatArray
    num_treated: FloatArray
    num_patients: float


def band_table(
    months: npt.ArrayLike,
    event: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    thresholds: tuple[float, ...],
    grid_months: tuple[float, ...],
) -> LifeTable:
    """Return one hospital's life table by band of predicted risk.

    Parameters
    ----------
    months, event : array (N,)
        As in `LifeTable.of`.
    predicted : float array (N,)
        Predicted probability of the event by ``grid_months[-1]``.
    thresholds : tuple of float, length T
        Rising, in (0, 1); a risk equal to a threshold is treated.
    """
    _check_thresholds(thresholds)
    bands = risk_group(predicted, tuple(thresholds))
    names = _names(thresholds)
    return LifeTable.of(months, event, bands, grid_months=tuple(grid_months), names=names)


def decision_curve(table: LifeTable, thresholds: tuple[float, ...]) -> DecisionCurve:
    """Return the curve at the end of the table's grid.

    Parameters
    ----------
    table : LifeTable
        Sum of the hospitals' `band_table`. Bands that a hospital withheld count for nobody, in the
        model's row as in that of treating all.
    thresholds : tuple of float
        Those the table was made with.
    """
    _check_thresholds(thresholds)
    require(table.names == _names(thresholds), "The table's bands are not those of the thresholds.")
    odds = np.asarray(thresholds) / (1 - np.asarray(thresholds))
    everybody = float(table.num_patients.sum())
    treated = np.cumsum(table.num_patients[::-1])[::-1][1:]
    risk = np.array([_observed(table, band) for band in range(len(table.names))])
    share = treated / everybody if everybody else np.full(len(thresholds), np.nan)
    # Nobody treated is no benefit and no harm, although Kaplan-Meier of nobody is unknown.
    observed = np.where(treated > 0, risk[1:], 0.0)
    model = share * observed - share * (1 - observed) * odds
    treat_all = risk[0] - (1 - risk[0]) * odds
    return DecisionCurve(np.asarray(thresholds), model, treat_all, treated, everybody)


def _observed(table: LifeTable, first_band: int) -> float:
    """Return 1 - Kaplan-Meier at the horizon of the bands from ``first_band`` up."""
    events = table.events[first_band:].sum(axis=0)
    at_risk = table.at_risk[first_band:].sum(axis=0)
    if at_risk[0] <= 0:
        return float("nan")
    return 1 - float(kaplan_meier(table.grid_months, events, at_risk).survival[-1])


def _check_thresholds(thresholds: tuple[float, ...]) -> None:
    values = np.asarray(thresholds, np.float64)
    rising = bool((np.diff(values) > 0).all() and ((values > 0) & (values < 1)).all())
    require(
        rising and 1 <= len(values) <= MAX_THRESHOLDS,
        f"1 to {MAX_THRESHOLDS} thresholds must rise inside (0, 1).",
    )


def _names(thresholds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"risk from {value:g}" for value in (0.0, *thresholds))
