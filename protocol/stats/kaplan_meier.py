"""Kaplan-Meier's curve with Greenwood's limits from counts on a grid."""

from dataclasses import dataclass

import numpy as np

from protocol.stats.sums import FloatArray

__all__ = ["NOBODY", "SurvivalCurve", "kaplan_meier"]

Z_95 = 1.959963984540054
NOBODY = 1e-9  # fractions of spread counts do not cancel to an exact 0


@dataclass(frozen=True)
class SurvivalCurve:
    """Kaplan-Meier of one group at the grid points.

    Attributes
    ----------
    months : float array (K + 1,)
        Grid, from 0.
    survival, lower, upper : float array (K + 1,)
        Probability in [0, 1] and its 95 % limits (Greenwood's variance on the log(-log) scale);
        nan from where nobody is left at risk.
    at_risk : float array (K + 1,)
        Patients still under observation just after each grid point, all patients at 0.
    """

    months: FloatArray
    survival: FloatArray
    lower: FloatArray
    upper: FloatArray
    at_risk: FloatArray


def kaplan_meier(
    grid_months: tuple[float, ...], events: FloatArray, at_risk: FloatArray
) -> SurvivalCurve:
    """Return the curve of one group.

    Parameters
    ----------
    grid_months : tuple of float, length K + 1
        Increasing, from 0.
    events : float array (K,)
        Events per interval, counted at its end.
    at_risk : float array (K + 1,)
        Patients at risk per interval; the last entry is beyond the grid.
    """
    exposed = np.where(at_risk[:-1] > NOBODY, at_risk[:-1], 1.0)
    survival = np.concatenate([[1.0], np.cumprod(np.clip(1 - events / exposed, 0, 1))])
    left = exposed - events
    step = np.full(len(events), np.inf)
    np.divide(events, exposed * left, out=step, where=left > NOBODY)
    variance = np.concatenate([[0.0], np.cumsum(step)])
    lower, upper = _log_log_limits(survival, variance)
    # Once nobody is at risk the curve is not 0 but unknown, unless it reached 0 by events.
    known = np.concatenate([[True], at_risk[:-1] > NOBODY]) | (survival < NOBODY)
    lines = [np.where(known, line, np.nan) for line in (survival, lower, upper)]
    return SurvivalCurve(np.asarray(grid_months), lines[0], lines[1], lines[2], at_risk)


def _log_log_limits(survival: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    inside = (survival > 0) & (survival < 1)
    safe = np.where(inside, survival, 0.5)
    log = np.log(safe)
    half = Z_95 * np.sqrt(np.where(inside, variance, 0.0)) / np.abs(log)
    lower, upper = safe ** np.exp(half), safe ** np.exp(-half)
    return np.where(inside, lower, survival), np.where(inside, upper, survival)
