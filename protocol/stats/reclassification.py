"""Net reclassification of a new model against a baseline model, from three life tables.

Patients move up, down or stay, between categories of risk or, without categories, by any change of
predicted risk. With n patients, S Kaplan-Meier at the horizon in a group and F = 1 - S:

    event NRI     = (n_up F_up - n_down F_down) / (n F)       higher is better
    non-event NRI = (n_down S_down - n_up S_up) / (n S)       higher is better

(Pencina, D'Agostino & Steyerberg, Stat Med 2011;30:11, eq. 7 and 8). State the two parts, not only
their sum: it weighs an event like a non-event however rare events are. The continuous NRI rewards
noise; report it beside the Brier score (Pepe et al., Stat Biosci 2015;7:282).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.stats.histogram import risk_group
from protocol.stats.kaplan_meier import kaplan_meier
from protocol.stats.lifetable import LifeTable
from protocol.stats.sums import require

__all__ = ["MOVES", "Reclassification", "move_table", "net_reclassification"]

MOVES = ("up", "same", "down")


@dataclass(frozen=True)
class Reclassification:
    """Net reclassification improvement.

    Attributes
    ----------
    event, non_event : float
        In [-1, 1] but for sampling; nan where Kaplan-Meier does not reach the horizon, or nobody or
        everybody has the event.
    num_up, num_same, num_down : float
        Patients.
    """

    event: float
    non_event: float
    num_up: float
    num_same: float
    num_down: float

    @property
    def total(self) -> float:
        """Sum of the two parts."""
        return self.event + self.non_event


def move_table(
    months: npt.ArrayLike,
    event: npt.ArrayLike,
    baseline: npt.ArrayLike,
    new: npt.ArrayLike,
    *,
    cuts: tuple[float, ...],
    grid_months: tuple[float, ...],
) -> LifeTable:
    """Return one hospital's life table of patients moved up, kept and moved down.

    Suppress it with `protocol.stats.whole_table.suppressed_whole`.

    Parameters
    ----------
    months, event : array (N,)
        As in `LifeTable.of`.
    baseline, new : float array (N,)
        Predicted probabilities of the event by ``grid_months[-1]``.
    cuts : tuple of float
        Between categories of risk, rising; empty for the continuous NRI.

    Raises
    ------
    PayloadError
        If lengths differ or a prediction is not finite.
    """
    old, young = (np.asarray(risk, np.float64).ravel() for risk in (baseline, new))
    require(old.shape == young.shape, "The two models' predictions differ in length.")
    require(bool(np.isfinite(old + young).all()), "A predicted probability is not finite.")
    if cuts:
        change = np.sign(risk_group(young, tuple(cuts)) - risk_group(old, tuple(cuts)))
    else:
        change = np.sign(young - old)
    return LifeTable.of(
        months, event, (1 - change).astype(np.int64), grid_months=tuple(grid_months), names=MOVES
    )


def net_reclassification(table: LifeTable) -> Reclassification:
    """Return the NRI of the sum of the hospitals' `move_table`, at the end of its grid."""
    require(table.names == MOVES, f"Reclassification needs the groups {', '.join(MOVES)}.")
    up, same, down = (float(number) for number in table.num_patients)
    everybody = up + same + down
    events, at_risk = table.events.sum(axis=0), table.at_risk.sum(axis=0)
    if everybody <= 0:
        return Reclassification(math.nan, math.nan, up, same, down)
    survival = float(kaplan_meier(table.grid_months, events, at_risk).survival[-1])
    s_up, s_down = (
        float(table.curve(group).survival[-1]) if number else 0.0
        for group, number in ((0, up), (2, down))
    )
    gained = up * (1 - s_up) - down * (1 - s_down)
    spared = down * s_down - up * s_up
    event = gained / (everybody * (1 - survival)) if survival < 1 else math.nan
    non_event = spared / (everybody * survival) if survival > 0 else math.nan
    return Reclassification(event, non_event, up, same, down)
