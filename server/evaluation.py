"""Judging survival predictions at the centre: two passes over the hospitals, then the curves.

First pass: score tables, from whose sum G, the curve of censoring, is derived for the training
hospitals' held-out patients together and for the external hospitals together. Second pass: sums
weighted by 1 / G, and the first round of the calibration curves; further rounds follow until these
have settled.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from protocol.errors import PayloadError
from protocol.evaluation import (
    ROLES,
    AskedCurve,
    EvaluationPlan,
    Role,
    bounded_weights,
    evaluation_grid,
    horizon_key,
)
from protocol.secure_groups import role_in, tellers
from protocol.stats import Histogram, ScoreTable, merge_all
from protocol.stats.calibration_curve import spline_knots
from protocol.stats.censoring import CensoringCurve
from protocol.stats.score_table import score_edges
from server.calibration import Answers, Key, calibration_starts, fit_together
from server.centre import Centre
from server.evaluation_results import RoleEvaluation
from server.findings import Findings
from server.telling import answered_by, ask_all

__all__ = ["evaluate", "evaluation_plan"]

KNOTS = 3


def evaluation_plan(
    centre: Centre, findings: Findings, histograms: Sequence[Histogram]
) -> EvaluationPlan:
    """Return what is settled before any validation patient has been looked at.

    Parameters
    ----------
    histograms : sequence of Histogram
        Of the training patients' predicted risk, one a hospital.
    """
    section, fitted = centre.study.validate_, findings.regression
    end_months = findings.agreed["horizon_months"]
    cuts = tuple(cut for cut in findings.agreed["cuts_months"] if cut <= end_months)
    horizons = tuple(findings.agreed["horizons_months"])
    # A regression on all patients has seen those who would judge it.
    usable = fitted is not None and centre.study.regression.patients == "training"
    # The regression is of one cause, the network's curve of any: they cannot be moved between.
    usable = usable and centre.study.prognosis.num_causes == 1
    return EvaluationPlan(
        grid_months=evaluation_grid(cuts, horizons),
        horizons_months=horizons,
        score_edges=score_edges(merge_all(histograms), section.score_bins),
        thresholds=section.thresholds,
        baseline_months=fitted.baseline_months if fitted and usable else (),
        baseline_hazard=fitted.baseline_cumulative_hazard if fitted and usable else (),
    )


def evaluate(
    centre: Centre,
    findings: Findings,
    plan: EvaluationPlan,
    histograms: dict[str, Histogram],
) -> dict[Role, RoleEvaluation]:
    """Ask the second pass, fit the calibration curves, and return what the roles have in common.

    The hospitals' sums are added to ``findings.validation``.

    Parameters
    ----------
    plan : EvaluationPlan
        Of the first pass, whose answers ``findings`` holds.
    histograms : dict
        Training patients' predicted risk by each horizon, for the knots of the curves.

    Raises
    ------
    QuorumError
        If too few hospitals answered.
    """
    censoring = _censoring(centre, findings)
    if not censoring:
        return {}
    plan = replace(plan, censoring={role: censoring[role] for role in censoring})
    asking = _Asking(centre, findings, plan)
    knots = {key: _knots(histogram) for key, histogram in histograms.items()}
    starts = calibration_starts(tuple(censoring), plan.horizons_months, knots)
    fits = fit_together(asking.steps, starts)
    fitted = {key: fit.asked for key, fit in fits.items() if fit.asked is not None}
    best = _best(tuple(censoring), plan.horizons_months, tuple(fitted))
    asking.errors([(key, fitted[key]) for key in best])
    return {
        role: RoleEvaluation(
            horizons_months=plan.horizons_months,
            thresholds=plan.thresholds,
            grid_months=curve.grid_months,
            censoring=curve.survival,
            calibration=tuple(fit.result for key, fit in fits.items() if key[0] == role),
        )
        for role, curve in censoring.items()
    }


def _censoring(centre: Centre, findings: Findings) -> dict[Role, CensoringCurve]:
    curves: dict[Role, CensoringCurve] = {}
    for role in ROLES:
        sent = [
            ScoreTable.from_dict(findings.validation[site]["evaluation"]["score_table"])
            for site in _answered(centre, findings)
            if role_in(centre.study, site) == role
        ]
        if sent and merge_all(sent).num_patients:
            curve = CensoringCurve.from_table(merge_all(sent).life_table())
            curves[role] = bounded_weights(curve)
    return curves


def _answered(centre: Centre, findings: Findings) -> tuple[str, ...]:
    """Return who answered the first pass, in the order in which sums are added."""
    sites = tellers(centre.study, centre.study.hospitals.validating)
    return tuple(site for site in sites if findings.validation.get(site, {}).get("evaluation"))


def _knots(histogram: Histogram) -> tuple[float, ...]:
    """Return the knots of a horizon's spline; empty where the predictions are too much alike."""
    try:
        return spline_knots(histogram, KNOTS)
    except PayloadError:
        return ()


def _best(roles: Sequence[Role], horizons: Sequence[float], fitted: Sequence[Key]) -> list[Key]:
    """Return for each role and horizon the most flexible curve that could be fitted."""
    found = []
    for role in roles:
        for horizon in horizons:
            forms = [(role, horizon, form) for form in ("spline", "linear")]
            found += [key for key in forms if key in fitted][:1]
    return found


class _Asking:
    """The questions of one evaluation, to the hospitals that answered the first pass."""

    def __init__(self, centre: Centre, findings: Findings, plan: EvaluationPlan) -> None:
        self.centre = centre
        self.findings = findings
        self.plan = plan
        self.sites = _answered(centre, findings)
        # By who tells, whose answers are in the sums of the first round.
        self.hospitals: dict[str, tuple[str, ...]] = {}
        self.rounds = 0

    def _answers(
        self, question: str, asked: list[AskedCurve], fitted: bool
    ) -> dict[str, dict[str, Any]]:
        plan = replace(self.plan, curves=tuple(asked))
        agreed = {**self.findings.agreed, "evaluation": plan.to_dict()}
        if fitted:
            agreed["calibration_fitted"] = True
        answers = ask_all(
            self.centre, question, self.sites, agreed, self.findings.prognosis, may_decline=True
        )
        return {site: answers[site] for site in self.sites if answers.get(site)}

    def steps(self, asked: list[AskedCurve]) -> Answers | None:
        """Return the steps by role; None once a hospital has left, as sums would not match."""
        question = "evaluate.calibration" if self.rounds else "evaluate.weighted"
        answers = self._answers(question, asked, False)
        hospitals = {name: answered_by(self.centre, question, name) for name in answers}
        if self.rounds and hospitals != self.hospitals:
            return None
        if not self.rounds:
            self.sites, self.hospitals = tuple(answers), hospitals
            for site, answer in answers.items():
                self.findings.validation[site]["evaluation"].update(answer["evaluation"])
        self.rounds += 1
        return {
            role: [
                answers[site]["steps"]
                for site in self.sites
                if role_in(self.centre.study, site) == role
            ]
            for role in ROLES
        }

    def errors(self, asked: list[tuple[Key, AskedCurve]]) -> None:
        """Ask for the distances to the fitted curves and note them with the hospitals' sums."""
        if not asked or not self.sites:
            return
        answers = self._answers("evaluate.calibration", [curve for _, curve in asked], True)
        for site, answer in answers.items():
            keys = [key for key, _ in asked if key[0] == role_in(self.centre.study, site)]
            told = {
                horizon_key(key[1]): errors
                for key, errors in zip(keys, answer["errors"], strict=False)
            }
            self.findings.validation[site]["evaluation"]["calibration_errors"] = told
