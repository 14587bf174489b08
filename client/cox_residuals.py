"""After the fit: sums of residuals, and the baseline hazard, from the hospital's own patients."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from client.cox import exposed, linear_predictor, stratum_terms
from client.cox_risk_sets import RiskSets, place
from client.survival_table import SurvivalTable, require_enough
from protocol.errors import DataError
from protocol.stats.cox_hazard import CoxHazard, HazardTerms, hazard_terms
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.sums import merge_all

__all__ = ["TRANSFORMS", "baseline_hazard", "grid_residuals", "stratified_residuals"]

FloatArray = npt.NDArray[np.float64]
Curve = tuple[Sequence[float], Sequence[float]]
# Functions of time against which proportional hazards are checked.
TRANSFORMS = ("identity", "km", "log")


def _transformed(months: FloatArray, transform: str, curve: Curve | None) -> FloatArray:
    if transform == "identity":
        return months
    if transform == "log":
        return np.asarray(np.log(months))
    if transform != "km":
        raise DataError(
            f"There is no function of time '{transform[:20]}'; write one of "
            f"{', '.join(TRANSFORMS)}."
        )
    if curve is None or len(curve[0]) != len(curve[1]):
        raise DataError(
            "The 'km' function of time needs the pooled survival curve; send its times and values."
        )
    steps = np.concatenate(([1.0], np.asarray(curve[1], np.float64)))
    index = np.searchsorted(np.asarray(curve[0], np.float64), months, side="right")
    return np.asarray(1.0 - steps[index])


def stratified_residuals(
    table: SurvivalTable,
    beta: npt.ArrayLike,
    *,
    ties: str = "efron",
    transform: str = "log",
    curve: Curve | None = None,
    min_cell: int,
) -> CoxResiduals:
    """Return the sums of residuals against the hospital's own risk sets.

    Parameters
    ----------
    transform : {"log", "identity", "km"}
        g(t) of the check of proportional hazards; "km" is one minus the pooled survival curve.
    curve : pair of sequences, optional
        Times (months) and survival just after them, for "km".

    Raises
    ------
    DataError
        If the hospital is too small for its rule, or the question cannot be answered.
    """
    require_enough(table, min_cell)
    predictor = linear_predictor(table, beta)
    at = np.asarray(beta, np.float64)
    parts = [CoxResiduals.empty(table.names, at, transform)]
    for stratum in np.unique(table.stratum):
        members = table.stratum == stratum
        here = table.take(members)
        if here.num_events:
            times, sets, r, terms = stratum_terms(here, predictor[members], ties)
            g = _transformed(times, transform, curve)
            parts.append(_residuals(here, at, r / here.weight, sets, terms, (transform, g)))
        else:
            nobody = CoxResiduals.empty(table.names, at, transform)
            parts.append(CoxResiduals(**(vars(nobody) | {"num_patients": len(here)})))
    return merge_all(parts)


def grid_residuals(
    table: SurvivalTable,
    hazard: CoxHazard,
    *,
    transform: str = "log",
    curve: Curve | None = None,
    min_cell: int,
) -> CoxResiduals:
    """Return the sums of residuals against the pooled risk sets, which the centre sent back.

    Raises
    ------
    DataError
        If the hospital is too small for its rule, or the table is of other covariates.
    """
    require_enough(table, min_cell)
    if hazard.names != table.names:
        raise DataError("The hazard table is of other covariates; ask for the study's own.")
    predictor = linear_predictor(table, hazard.beta)
    grid = np.asarray(hazard.grid_months, np.float64)
    sets = place(table, grid, min_cell)
    pair = (transform, _transformed(grid, transform, curve))
    return _residuals(table, hazard.beta, np.exp(predictor), sets, hazard, pair)


def _residuals(
    table: SurvivalTable,
    beta: FloatArray,
    risk: FloatArray,
    sets: RiskSets,
    terms: HazardTerms | CoxHazard,
    transform: tuple[str, FloatArray],
) -> CoxResiduals:
    """Sum score residuals (Therneau & Grambsch 2000, section 4.6.2, Efron's ties) and the rest.

    u_i = d_i (x_i - mean) - exp(x_i beta) sum_kl (dL0_kl) (x_i - m_kl) over i's time at risk.
    """
    hazard = np.column_stack([terms.hazard, terms.hazard_x])
    tied = np.column_stack([terms.tied, terms.tied_x])
    exposure = risk[:, None] * exposed(sets, hazard, tied)
    happened = sets.event >= 0
    point = sets.event[happened]
    weight = table.weight[:, None]
    schoenfeld = table.x[happened] - terms.event_mean[point]
    score = -(table.x * exposure[:, :1] - exposure[:, 1:])
    score[happened] += schoenfeld
    score *= weight
    outer = score.T @ score
    name, values = transform
    g, w = values[point], table.weight[happened]
    return CoxResiduals(
        table.names,
        beta,
        (name,),
        len(table),
        int(happened.sum()),
        (outer + outer.T) / 2,
        float(w.sum()),
        float(w @ g),
        float(w @ g**2),
        w @ schoenfeld,
        (w * g) @ schoenfeld,
        float(w.sum() - table.weight @ exposure[:, 0]),
        0,
    )


def baseline_hazard(
    table: SurvivalTable,
    beta: npt.ArrayLike,
    grid_months: Sequence[float] | None = None,
    *,
    ties: str = "efron",
    min_cell: int,
) -> CoxHazard:
    """Return the hospital's own baseline hazard, for survival curves after a stratified fit.

    On its own event times (``grid_months=None``) it stays at the hospital; to be sent, it needs a
    common grid and the hospital's ``min_cell``, by which times are moved together. Strata inside
    the hospital are not looked at.

    Raises
    ------
    DataError
        If the hospital is too small for its rule, has no event, or ``beta`` cannot be answered.
    """
    require_enough(table, min_cell)
    if not table.num_events:
        raise DataError("Without an event there is no baseline hazard; use the pooled one.")
    r = table.weight * np.exp(linear_predictor(table, beta))
    own = np.unique(table.months[table.event])
    grid = own if grid_months is None else np.asarray(grid_months, np.float64)
    sets = place(table, grid, min_cell)
    weighted = np.column_stack([r, r[:, None] * table.x])
    risk, tied = sets.at_risk(weighted), sets.at_event(weighted)
    deaths = np.bincount(sets.event[sets.event >= 0], minlength=len(grid))
    weight = sets.at_event(table.weight[:, None])[:, 0]
    terms = hazard_terms(deaths, weight, (risk[:, 0], risk[:, 1:]), (tied[:, 0], tied[:, 1:]), ties)
    return CoxHazard(
        table.names,
        (ties,),
        tuple(float(point) for point in grid),
        np.asarray(beta, np.float64),
        terms.hazard,
        terms.tied,
        terms.hazard_x,
        terms.tied_x,
        terms.event_mean,
    )
