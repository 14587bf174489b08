"""How far predictions are right: one table for the hospitals of each role."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from protocol.evaluation import Role, horizon_key
from protocol.stats import LifeTable, PairCounts, merge_all
from protocol.stats.brier import BrierSums
from protocol.stats.censoring import CensoringCurve
from protocol.stats.reclassification import net_reclassification
from protocol.stats.table_concordance import BoundedConcordance, auc_at, harrell_c, uno_c
from protocol.stats.weighted_pairs import WeightedPairs
from server.evaluation_results import CalibrationResult, RoleEvaluation, SiteEvaluation
from server.report.meta_analysis import hospitals_together
from server.report.noise import NOISED
from server.report.pooling import main_arm, pooled, sites_of
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number, p_value
from server.results import Results, SiteValidation

__all__ = ["Judgement", "evaluation_table", "judgement"]

TITLES = ("Estimate", "95 % interval", "Patients", "Events", "Months")
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Judgement:
    """What the hospitals of one role sent about the main arm: together, apart, and in common."""

    role: Role
    total: SiteValidation
    sums: SiteEvaluation
    sites: dict[str, SiteValidation]
    common: RoleEvaluation

    @property
    def censoring(self) -> CensoringCurve:
        return CensoringCurve(self.common.grid_months, self.common.censoring)

    @property
    def end_months(self) -> float:
        return self.common.grid_months[-1]

    def fit(self, horizon: float, form: str) -> CalibrationResult | None:
        """Return the fitted calibration curve of a form, if there is one."""
        for found in self.common.calibration:
            if (found.horizon_months, found.form) == (horizon, form) and found.coefficients:
                return found
        return None


def judgement(results: Results, role: Role) -> Judgement | None:
    """Return what the report says about the hospitals of a role; None if they sent nothing."""
    arm = main_arm(results)
    if arm is None or role not in results.arms[arm].evaluation:
        return None
    total = pooled(results, arm, role)
    if total.evaluation is None:
        return None
    sites = {
        name: results.arms[arm].sites[name]
        for name in sites_of(results, role)
        if name in results.arms[arm].sites
    }
    return Judgement(role, total, total.evaluation, sites, results.arms[arm].evaluation[role])


def evaluation_table(judged: Judgement, *, noised: bool = False) -> Table:
    """Return discrimination, overall error and calibration, each with interval, n and horizon.

    Parameters
    ----------
    noised : bool
        Whether a hospital's table of scores is noised, so that counts of it are marked.
    """
    rows = [Row("Discrimination (1 is perfect, 0.5 is chance)", heading=True)]
    rows += _discrimination(judged, NOISED if noised else "")
    rows.append(Row("Overall error (0 is perfect)", heading=True))
    rows += _error(judged)
    rows.append(Row("Calibration", heading=True))
    rows += _calibration(judged)
    if judged.sums.moves is not None and judged.sums.moves.num_patients.any():
        rows.append(Row("Against the Cox regression (above 0 is better)", heading=True))
        rows += _reclassified(judged.sums.moves)
    return Table(tuple(map(Column, TITLES)), tuple(rows))


def _row(
    label: str,
    estimate: str,
    limits: str = DASH,
    counts: tuple[float | None, float | None] = (None, None),
    months: str = DASH,
) -> Row:
    return Row(label, (estimate, limits, *(number(value, 0) for value in counts), months))


def _discrimination(judged: Judgement, mark: str = "") -> Iterator[Row]:
    sums, end = judged.sums, f"{judged.end_months:g}"
    table, censoring = sums.score_table, judged.censoring
    yield from _within("C-index (Harrell), within hospitals", judged.total.pairs)
    if table is not None and table.num_patients:
        counts = (table.num_patients, table.num_events)
        yield _bounded("C-index (Harrell), across hospitals", harrell_c(table), counts, end, mark)
    yield from _within("Uno's C, within hospitals", sums.uno)
    if table is not None and table.num_patients:
        yield _bounded("Uno's C, across hospitals", uno_c(table, censoring), counts, end, mark)
    yield from _within("Antolini's C, within hospitals", sums.antolini)
    for horizon in judged.common.horizons_months:
        yield from _within("AUC, within hospitals", sums.auc.get(horizon_key(horizon)))
        if table is not None and table.num_patients:
            found = auc_at(table, censoring, horizon)
            yield _bounded("AUC, across hospitals", found, counts, f"{horizon:g}", mark)
    meta = hospitals_together(site.pairs for site in judged.sites.values())
    if meta is not None:
        limits = interval(meta.low, meta.high, 3)
        text = f"{number(meta.estimate, 3)}\n{meta.num_hospitals} hospitals"
        yield _row("C-index of the average hospital (random effects)", text, limits, months=end)
        if math.isfinite(meta.predicted_low):
            ahead = interval(meta.predicted_low, meta.predicted_high, 3)
            share = f"{100 * meta.i_squared:.0f} % of variation between hospitals"
            yield _row("C-index expected at a further hospital", DASH, f"{ahead}\n{share}")


def _within(label: str, pairs: PairCounts | WeightedPairs | None) -> Iterator[Row]:
    if pairs is None or not pairs.comparable:
        return
    value = pairs.c_index if isinstance(pairs, PairCounts) else pairs.value
    number_of = pairs.comparable if isinstance(pairs, PairCounts) else pairs.num_pairs
    text = f"{number(value, 3)}\n{number_of:,} pairs"
    counts = (pairs.num_patients, pairs.num_events)
    yield _row(label, text, interval(*pairs.interval(), 3), counts, f"{pairs.tau_months:g}")


def _bounded(
    label: str, found: BoundedConcordance, counts: tuple[int, int], months: str, mark: str
) -> Row:
    limits = f"{DASH}\nbounds {interval(found.low, found.high, 3)}"
    shown = (f"{number(value, 0)} {mark}".rstrip() for value in counts)
    return Row(label, (number(found.value, 3), limits, *shown, months))


def _error(judged: Judgement) -> Iterator[Row]:
    sums, survival = judged.sums.brier, _survival(judged)
    if sums is None:
        return
    null = sums.null_scores(np.interp(sums.horizons_months, judged.common.grid_months, survival))
    limits = sums.intervals()
    for horizon in judged.common.horizons_months:
        at = sums.horizons_months.index(horizon)
        if not sums.num_patients[at]:
            continue
        text = f"{number(sums.scores[at], 3)}\nsame curve for all: {number(null[at], 3)}"
        counts = (int(sums.num_patients[at]), int(sums.cases[at]))
        low, high = limits[at].tolist()
        yield _row("Brier score", text, interval(low, high, 3), counts, f"{horizon:g}")
    yield from _integrated(_complete(judged.sites.values()) or sums, judged, survival)


def _integrated(sums: BrierSums, judged: Judgement, survival: np.ndarray) -> Iterator[Row]:
    whole = _whole_horizons(sums)
    if whole is None or len(whole.horizons_months) < 2:
        return
    first, last = whole.horizons_months[0], whole.horizons_months[-1]
    counts = (int(whole.num_patients[-1]), int(whole.cases[-1]))
    months = f"{first:g} to {last:g}"
    low, high = whole.intervals()[-1].tolist()
    limits = interval(low, high, 3)
    yield _row("Integrated Brier score", number(whole.integrated(), 3), limits, counts, months)
    curve = np.interp(whole.horizons_months, judged.common.grid_months, survival)
    label = "Scaled integrated Brier score (1 is perfect, 0 no better than one curve for all)"
    yield _row(label, number(whole.scaled(curve), 3), DASH, counts, months)


def _survival(judged: Judgement) -> np.ndarray:
    """Return Kaplan-Meier of everybody at the points of the grid."""
    table = judged.sums.score_table
    if table is None or not table.num_patients:
        return np.full(len(judged.common.grid_months), np.nan)
    return table.life_table().curve(0).survival


def _complete(sites: Iterable[SiteValidation]) -> BrierSums | None:
    """Add the hospitals that withheld no horizon: an integral needs the same patients at all."""
    sent = [site.evaluation.brier for site in sites if site.evaluation is not None]
    whole = [part for part in sent if part is not None and not part.withheld.any()]
    return merge_all(whole) if whole else None


def _whole_horizons(sums: BrierSums) -> BrierSums | None:
    """Return the horizons at which all the patients are, None if there is none."""
    keep = (sums.num_patients == sums.num_patients.max()) & (sums.num_patients > 0)
    if not keep.any():
        return None
    months = np.asarray(sums.horizons_months)
    return BrierSums(
        tuple(months[keep].tolist()),
        sums.num_patients[keep],
        sums.cases[keep],
        sums.controls[keep],
        sums.case_weight[keep],
        sums.control_weight[keep],
        sums.squares[keep],
        sums.replicates.reshape(-1, len(months), 3)[:, keep],
        sums.withheld[keep],
    )


def _calibration(judged: Judgement) -> Iterator[Row]:
    for horizon in judged.common.horizons_months:
        months = f"{horizon:g}"
        whole, line = judged.fit(horizon, "intercept"), judged.fit(horizon, "linear")
        if whole is not None:
            label = "Calibration in the large (0 is ideal; above 0, more events than predicted)"
            yield _coefficient(label, whole, 0)
        if line is not None:
            label = "Calibration slope (1 is ideal; below 1, predictions too extreme)"
            yield _coefficient(label, line, 1)
        errors = judged.sums.calibration_errors.get(horizon_key(horizon))
        if errors is not None and errors.num_patients and line is not None:
            text = (
                f"{number(errors.ici, 3)}\nE50 {number(errors.quantile(0.5), 3)}, "
                f"E90 {number(errors.quantile(0.9), 3)}"
            )
            counts = (errors.num_patients, line.cases)
            label = "Mean distance of predicted to observed risk (ICI; 0 is ideal)"
            yield _row(label, text, DASH, counts, months)
    own = judged.sums.d_calibration
    if own is not None and own.patients.any():
        statistic, freedom = own.chi_square()
        p = p_value(float(chdtrc(freedom, statistic)))
        text = f"χ² = {number(statistic, 1)}\n{freedom} d.f., p {p}"
        everyone = int(own.patients.sum())
        yield _row("D-calibration (small p: curves are wrong)", text, DASH, (everyone, None))


def _coefficient(label: str, fit: CalibrationResult, index: int) -> Row:
    value, half = fit.coefficients[index], Z_95 * math.sqrt(fit.covariance[index][index])
    limits = interval(value - half, value + half, 2)
    counts = (fit.patients, fit.cases)
    return _row(label, number(value, 2), limits, counts, f"{fit.horizon_months:g}")


def _reclassified(moves: LifeTable) -> Iterator[Row]:
    found = net_reclassification(moves)
    counts = (float(moves.num_patients.sum()), float(moves.events.sum()))
    months = f"{moves.grid_months[-1]:g}"
    up, down = f"{found.num_up:,.0f} patients up", f"{found.num_down:,.0f} down"
    text = f"{number(found.event, 3)}\n{up}, {down}"
    yield _row("Net reclassification of patients with the event", text, DASH, counts, months)
    label = "Net reclassification of patients without"
    yield _row(label, number(found.non_event, 3), DASH, counts, months)
