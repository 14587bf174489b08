"""The hospital's half of a Cox regression: patients in, sums over risk sets out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.cox_risk_sets import RiskSets, place
from client.survival_table import SurvivalTable, assign_folds, require_enough
from protocol.errors import DataError
from protocol.stats.cox import CoxSums, check_ties, tidy
from protocol.stats.cox_grid import CoxGridSums, check_grid
from protocol.stats.cox_hazard import HazardTerms, hazard_terms
from protocol.stats.sums import merge_all

__all__ = [
    "MAX_PREDICTOR",
    "MAX_SPREAD",
    "SurvivalTable",
    "assign_folds",
    "exposed",
    "grid_sums",
    "linear_predictor",
    "require_enough",
    "stratified_sums",
    "stratum_terms",
]

FloatArray = npt.NDArray[np.float64]
# Beyond a hazard ratio of e^100 between two patients the sums are those of single persons.
MAX_SPREAD = 100.0
# exp of it, squared covariates and a million patients stay far inside double precision.
MAX_PREDICTOR = 400.0


def linear_predictor(table: SurvivalTable, beta: npt.ArrayLike) -> FloatArray:
    """Return ``x beta`` (N,) after checking that it can be answered.

    Raises
    ------
    DataError
        If ``beta`` does not fit the covariates, is not finite, spreads the patients over more than
        `MAX_SPREAD` (there the sums single out the highest one), or shifts them all beyond
        `MAX_PREDICTOR`.
    """
    at = np.asarray(beta, np.float64)
    if at.shape != (len(table.names),) or not np.isfinite(at).all():
        raise DataError(
            f"Coefficients of shape {at.shape} were asked for; expected {len(table.names)} finite "
            "numbers, one a covariate of the study."
        )
    predictor = table.x @ at
    if len(table) and (
        float(np.ptp(predictor)) > MAX_SPREAD or float(np.abs(predictor).max()) > MAX_PREDICTOR
    ):
        raise DataError(
            f"The coefficients asked for spread the linear predictor beyond {MAX_SPREAD:g} or move "
            f"it beyond {MAX_PREDICTOR:g}; standardise the covariates or add a ridge penalty."
        )
    return np.asarray(predictor)


def stratified_sums(
    table: SurvivalTable, beta: npt.ArrayLike, *, ties: str = "efron", min_cell: int
) -> CoxSums:
    """Return this hospital's own partial likelihood and its derivatives.

    Every stratum inside the hospital has its own risk sets on its own event times. Covariates are
    centred inside each stratum before they are squared: the likelihood does not see the shift, and
    rounding does.

    Parameters
    ----------
    table : SurvivalTable
    beta : float array (P,)
    ties : {"efron", "breslow"}
    min_cell : int
        The hospital's smallest publishable count; 1 refuses nobody.

    Raises
    ------
    DataError
        If the hospital is too small for its rule, or ``beta`` cannot be answered.
    """
    check_ties(ties)
    require_enough(table, min_cell)
    predictor = linear_predictor(table, beta)
    at = np.asarray(beta, np.float64)
    parts = [CoxSums.empty(table.names, at, ties)]
    for stratum in np.unique(table.stratum):
        here = table.stratum == stratum
        parts.append(_likelihood(table.take(here), predictor[here], at, ties))
    total = merge_all(parts)
    # One hospital, however many strata had events.
    return _as_one_site(total)


def _as_one_site(sums: CoxSums) -> CoxSums:
    values = vars(sums) | {"num_sites": min(sums.num_sites, 1)}
    return CoxSums(**values)


def stratum_terms(
    table: SurvivalTable, predictor: FloatArray, ties: str
) -> tuple[FloatArray, RiskSets, FloatArray, HazardTerms]:
    """Return one stratum's event times, risk sets, hazards ``r`` (N,) and hazard terms.

    ``r`` is scaled by its largest value, which cancels in the likelihood but not in the terms.
    """
    times = np.unique(table.months[table.event])
    sets = place(table, times)
    r = table.weight * np.exp(predictor - predictor.max())
    weighted = np.column_stack([r, r[:, None] * table.x])
    risk, tied = sets.at_risk(weighted), sets.at_event(weighted)
    deaths = np.bincount(sets.event[sets.event >= 0], minlength=len(times))
    weight = sets.at_event(table.weight[:, None])[:, 0]
    terms = hazard_terms(deaths, weight, (risk[:, 0], risk[:, 1:]), (tied[:, 0], tied[:, 1:]), ties)
    return times, sets, r, terms


def _likelihood(
    table: SurvivalTable, predictor: FloatArray, beta: FloatArray, ties: str
) -> CoxSums:
    if not table.num_events:
        nobody = CoxSums.empty(table.names, beta, ties)
        return CoxSums(**(vars(nobody) | {"num_patients": len(table)}))
    # A constant becomes exactly 0, which the mean alone would miss by rounding.
    centred = np.where(np.ptp(table.x, axis=0) > 0, table.x - table.x.mean(axis=0), 0.0)
    table = replace(table, x=centred)
    _, sets, r, terms = stratum_terms(table, predictor, ties)
    exposure = r * exposed(sets, terms.hazard[:, None], terms.tied[:, None])[:, 0]
    happened = table.event
    weight = table.weight[happened]
    second = (table.x * exposure[:, None]).T @ table.x - terms.mean_square
    shifted = predictor[happened] - predictor.max()
    return CoxSums(
        table.names,
        (ties,),
        beta,
        len(table),
        table.num_events,
        1,
        float(weight.sum()),
        float(weight @ shifted) - terms.log_denominator,
        weight @ table.x[happened] - exposure @ table.x,
        tidy(second),
        0,
    )


def exposed(sets: RiskSets, hazard: FloatArray, tied: FloatArray) -> FloatArray:
    """Return what each patient was exposed to while at risk, per unit of ``exp(x beta)``.

    Efron's rule counts a patient with an event at a tied time only in part; ``tied`` is the part
    to take off (`protocol.stats.cox_hazard`).

    Parameters
    ----------
    hazard, tied : float array (K, Q)
        Increments at each point.

    Returns
    -------
    float array (N, Q)
    """
    cumulative = np.concatenate((np.zeros((1, hazard.shape[1])), np.cumsum(hazard, axis=0)))
    stop = sets.last + 1
    total = cumulative[stop] - cumulative[np.minimum(sets.first, stop)]
    happened = sets.event >= 0
    total[happened] -= tied[sets.event[happened]]
    return np.asarray(total)


def grid_sums(
    table: SurvivalTable,
    beta: npt.ArrayLike,
    grid_months: Sequence[float],
    *,
    min_cell: int,
    max_coarse_months: float = 0.0,
) -> CoxGridSums:
    """Return this hospital's risk-set sums on the study's grid (strata are not looked at).

    With ``min_cell`` above 1 nobody, or at least ``min_cell`` patients of each kind (event,
    censored, late entry), may come or go between two points of the grid. Where fewer do, the
    hospital's times would have to be moved together, and the fit is no longer exact: hospitals
    move theirs unlike each other, and a covariate that goes with the length of follow-up takes the
    bias. So the default is exact or refused.

    Parameters
    ----------
    max_coarse_months : float
        Longest span over which times may be moved together; ``coarse_months`` of the answer tells
        how long it was. 0 allows none.

    Raises
    ------
    DataError
        If the hospital is too small for its rule on this grid, or ``beta`` cannot be answered.
    """
    check_grid(grid_months, len(table.names))
    require_enough(table, min_cell, events_needed=False)
    predictor = linear_predictor(table, beta)
    if not len(table):
        return CoxGridSums.empty(table.names, grid_months, beta)
    sets = place(table, np.asarray(grid_months, np.float64), min_cell)
    if sets.coarse_months > max_coarse_months:
        raise DataError(
            f"On this grid the hospital's minimum of {min_cell} patients needs times moved "
            f"together over {sets.coarse_months:g} months where {max_coarse_months:g} are allowed; "
            "use the site-stratified regression or a coarser common grid."
        )
    r = table.weight * np.exp(predictor)
    weighted = np.column_stack([r, r[:, None] * table.x])
    risk, tied = sets.at_risk(weighted), sets.at_event(weighted)
    risk2, tied2 = sets.second_moments(table.x, r)
    events = sets.at_event(np.column_stack([table.weight, table.weight[:, None] * table.x]))
    deaths = np.bincount(sets.event[sets.event >= 0], minlength=len(grid_months))
    return CoxGridSums(
        table.names,
        tuple(float(point) for point in grid_months),
        np.asarray(beta, np.float64),
        len(table),
        int(deaths.any()),
        deaths.astype(np.int64),
        events[:, 0],
        events[:, 1:],
        risk[:, 0],
        risk[:, 1:],
        risk2,
        tied[:, 0],
        tied[:, 1:],
        tied2,
        sets.coarse_months,
        0,
    )
