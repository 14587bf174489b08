"""What must be common to all hospitals, derived from their summed survey answers.

``agreed`` travels with every later message: scales of the covariates and measurements, the time
grid of the survival head, the hash of the segmentation weights, the cut points of risk groups.
"""

from collections.abc import Sequence

import numpy as np

from protocol.errors import ConfigError, QuorumError
from protocol.stats import Histogram, LifeTable, Moments, merge_all
from protocol.stats.kaplan_meier import NOBODY, kaplan_meier
from protocol.stats.sums import FloatArray
from protocol.survival_config import Prognosis

__all__ = [
    "evaluation_horizons",
    "interval_hazards",
    "merge_moments",
    "risk_cuts",
    "scales",
    "supported_months",
    "time_grid",
]

MIN_AT_RISK = 20
MIN_AT_RISK_SHARE = 0.1


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Add the hospitals' moments in the given (site) order."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def scales(moments: Moments) -> dict[str, list[float]]:
    """Return ``{name: [mean, sd]}`` for standardisation; sd is 1 for a constant column."""
    return {
        name: [
            float(m) if np.isfinite(m) else 0.0,
            float(s) if np.isfinite(s) and s > 0 else 1.0,
        ]
        for name, m, s in zip(moments.names, moments.mean, moments.sd, strict=True)
    }


def supported_months(tables: Sequence[LifeTable]) -> float:
    """Return the last surveyed time at which enough patients are followed, months.

    That is 20 patients and 10 % of all, at the hospitals together: beyond, a hazard would rest on a
    handful of people.

    Raises
    ------
    QuorumError
        If fewer than 20 patients are followed past the first surveyed time.
    """
    total = merge_all(tables)
    at_risk = total.at_risk.sum(axis=0)
    enough = at_risk >= max(MIN_AT_RISK, MIN_AT_RISK_SHARE * at_risk[0])
    times = np.asarray(total.grid_months)[enough]
    horizon = float(times[-1]) if len(times) else 0.0
    if horizon <= 0:
        raise QuorumError(
            f"The training hospitals follow {int(at_risk[0])} patients with a known outcome; "
            f"prognosis needs {MIN_AT_RISK} beyond the first half-year: add hospitals or follow-up."
        )
    return horizon


def time_grid(tables: Sequence[LifeTable], prognosis: Prognosis) -> list[float]:
    """Return the right ends of the survival intervals, months.

    The grid ends at `supported_months`, or with ``grid_end: follow_up`` at the end of the surveyed
    interval that holds the last follow-up, as far as it is told: hospitals spread small cells over
    their neighbours, which may move the end later. ``intervals: events`` are quantiles of the
    surveyed event times by Kaplan-Meier (Kvamme & Borgan, Lifetime Data Anal 2021;27:710, section
    3.3.2). Equally many events instead would make the last interval wide where most are censored,
    and how long each was at risk in it would be lost.

    Raises
    ------
    QuorumError
        If fewer than 20 patients are followed past the first surveyed time, or their events lie too
        close together for so many intervals.
    """
    end = supported_months(tables)
    total = merge_all(tables)
    if prognosis.grid_end == "follow_up":
        followed = np.flatnonzero(total.at_risk.sum(axis=0) > NOBODY)
        end = float(total.grid_months[min(int(followed[-1]) + 1, len(total.grid_months) - 1)])
    shares = np.arange(1, prognosis.num_intervals + 1) / prognosis.num_intervals
    cuts = end * shares if prognosis.intervals == "equal" else _by_events(total, end, shares)
    return [round(float(cut), 6) for cut in cuts]


def _by_events(total: LifeTable, end: float, shares: FloatArray) -> FloatArray:
    """Return the times by which these shares of the fall of S up to ``end`` have come."""
    curve = kaplan_meier(total.grid_months, total.events.sum(axis=0), total.at_risk.sum(axis=0))
    inside = np.isfinite(curve.survival) & (curve.months <= end)
    # Where nothing happens the curve stands still: the first time at which it got there counts.
    fallen, first = np.unique(1 - curve.survival[inside], return_index=True)
    cuts = np.append(np.interp(shares[:-1] * fallen[-1], fallen, curve.months[first]), end)
    if not (np.diff(cuts, prepend=0.0) > 1e-6).all():
        raise QuorumError(
            f"The surveyed events do not suffice for {len(shares)} intervals in which the curve "
            "falls alike; lower prognosis.num_intervals or set prognosis.intervals to equal."
        )
    return cuts


def evaluation_horizons(wanted: Sequence[float], end_months: float) -> list[float]:
    """Return when predictions are judged, months: what the study names, or `supported_months`.

    Raises
    ------
    ConfigError
        If the study names a time beyond, where too few are followed to judge anything.
    """
    if any(horizon > end_months for horizon in wanted):
        raise ConfigError(
            f"validate.horizons_months names {wanted[-1]:g}, but the hospitals follow enough "
            f"patients for {end_months:g} months only; name an earlier time or add follow-up."
        )
    return [float(horizon) for horizon in wanted] or [end_months]


def interval_hazards(tables: Sequence[LifeTable], cuts_months: Sequence[float]) -> list[float]:
    """Return the surveyed probability of the event in each interval among those who reach it.

    Kaplan-Meier of the summed tables, its cumulative hazard straight between two surveyed times.
    """
    total = merge_all(tables)
    curve = kaplan_meier(total.grid_months, total.events.sum(axis=0), total.at_risk.sum(axis=0))
    known = np.isfinite(curve.survival) & (curve.survival > 0)
    hazard = -np.log(curve.survival[known])
    ends = np.interp(cuts_months, np.asarray(total.grid_months)[known], hazard)
    return [float(value) for value in -np.expm1(-np.diff(ends, prepend=0.0))]


def risk_cuts(histograms: Sequence[Histogram], num_groups: int) -> list[float]:
    """Return the cut points that split the training patients' summed scores into equal groups."""
    total = histograms[0]
    for part in histograms[1:]:
        total = total.merge(part)
    return [float(cut) for cut in total.cuts(num_groups)]
