"""The regression stage at the hospital: its patients as a table, and the sums a Cox fit asks for.

What the sums of one question tell is said in `protocol.stats.cox` and `protocol.stats.cox_grid`.
"""

import math
from typing import Any

import numpy as np

from client.cohort import Patient
from client.cox import grid_sums, stratified_sums
from client.cox_folds import without_fold
from client.cox_residuals import grid_residuals, stratified_residuals
from client.hospital import Hospital
from client.imputation import Gaps, Step, complete, equations
from client.optimism import concordance, resampled
from client.private_terms import refuse_unnoised
from client.prognosis import tabular_values
from client.survey import has_outcome, validation_patients
from client.survival_table import SurvivalTable, require_enough
from protocol.errors import DataError, PayloadError
from protocol.evaluation import EvaluationPlan
from protocol.payload import Answer, Question
from protocol.stats import PairCounts
from protocol.stats.cox import CoxSums
from protocol.stats.cox_hazard import CoxHazard

__all__ = ["answer", "baseline_risk", "judged_patients", "survival_table", "validate"]

MISSING = " missing"
MAX_SCORE = 500.0  # beyond, the probability is 1 to the last bit


def survival_table(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> SurvivalTable:
    """Return patients with a known outcome as the table of the study's regression.

    Covariates are standardised by ``agreed["scales"]``; those in ``agreed["cox"]["indicators"]``
    are 0 where missing and have a further column that is 1 there. With imputation, gaps hold what
    the chain of ``agreed["cox"]["impute"]`` draws (the mean where there is no chain: in patients
    whom the finished fit is judged on). Otherwise, patients who lack a covariate are left out. Who
    was not observed for any time is left out too.

    Raises
    ------
    DataError
        If measurements are wanted that were not made.
    """
    names, rows, x = _rows(hospital, question, patients)
    return SurvivalTable.of(
        names,
        [patient.months for patient in rows],
        # Whoever had a competing event is censored then: the hazard is that of the event alone.
        [int(patient.event == 1) for patient in rows],
        x,
        start_months=[patient.start_months for patient in rows],
    )


def baseline_risk(hospital: Hospital, question: Question, plan: EvaluationPlan) -> dict[str, float]:
    """Return what the Cox regression predicts, by patient key: the event's probability by the end.

    ``1 - exp(-H0(end) exp(x' beta))`` with the regression's own baseline hazard; without those of
    whom a covariate is missing, where the study leaves such patients out.
    """
    _, rows, x = _rows(hospital, question, validation_patients(hospital, question.study))
    index = np.searchsorted(np.asarray(plan.baseline_months), plan.end_months, side="right") - 1
    hazard = plan.baseline_hazard[index] if index >= 0 else 0.0
    score = x @ np.asarray(_asked(question)["beta"], np.float64)
    risk = -np.expm1(-hazard * np.exp(np.minimum(score, MAX_SCORE)))
    return {patient.key: float(value) for patient, value in zip(rows, risk, strict=True)}


def _rows(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> tuple[tuple[str, ...], list[Patient], np.ndarray]:
    """Return the names of the columns, the patients in whom they are known, and the columns."""
    study, agreed = question.study, question.agreed
    section = study.regression
    known, x = _standardised(hospital, question, patients)
    missing = np.isnan(x)
    if section.missing == "indicator":
        flagged = [section.names.index(name) for name in agreed["cox"]["indicators"]]
        x = np.concatenate([np.where(missing, 0.0, x), missing[:, flagged]], axis=1)
        kept = np.ones(len(known), dtype=bool)
    elif section.missing == "impute":
        flagged, kept = [], np.ones(len(known), dtype=bool)
        x = _imputed(hospital, question, _gaps(question, known, x))
    else:
        flagged = []
        kept = ~missing.any(axis=1)
    names = (*section.names, *(section.names[index] + MISSING for index in flagged))
    rows = [patient for patient, keep in zip(known, kept, strict=True) if keep]
    return names, rows, x[kept].reshape(len(rows), len(names))


def judged_patients(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> list[Patient]:
    """Return the patients that `survival_table` has a row of, in its order."""
    known, x = _standardised(hospital, question, patients)
    if question.study.regression.missing != "complete":
        return known
    complete = ~np.isnan(x).any(axis=1)
    return [patient for patient, keep in zip(known, complete, strict=True) if keep]


def _standardised(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> tuple[list[Patient], np.ndarray]:
    """Return the patients who were observed for some time, and their covariates, NaN if missing."""
    section, agreed = question.study.regression, question.agreed
    known = [patient for patient in has_outcome(patients) if patient.months > patient.start_months]
    values = tabular_values(
        hospital, question.study, agreed, known, section.measurements, section.covariates
    )
    scales = np.array([agreed["scales"][name] for name in section.names]).reshape(-1, 2)
    return known, (values - scales[:, 0]) / scales[:, 1]


def _gaps(question: Question, known: list[Patient], x: np.ndarray) -> Gaps:
    curve = question.agreed["cox"].get("curve") or {"months": [0.0], "cumulative": [0.0]}
    months = [patient.months for patient in known]
    auxiliary = np.column_stack(
        [
            np.array([float(patient.event == 1) for patient in known]),
            np.interp(months, curve["months"], curve["cumulative"]),
        ]
    )
    return Gaps(question.study.regression.names, x, ("event", "hazard"), auxiliary)


def _imputed(hospital: Hospital, question: Question, gaps: Gaps) -> np.ndarray:
    asked = question.agreed["cox"].get("impute") or {"index": 0, "steps": []}
    # One stream of noise an imputation, from the hospital's secret: whoever knows the steps knows
    # the regressions, not what was drawn for a patient.
    rng = hospital.private_generator(f"{question.study.name}/impute/{int(asked['index'])}")
    return complete(gaps, [Step.from_dict(step) for step in asked["steps"]], rng)


def _equations(hospital: Hospital, question: Question, patients: list[Patient]) -> Answer:
    known, x = _standardised(hospital, question, patients)
    gaps, min_cell = _gaps(question, known, x), hospital.config.min_cell
    filled = _imputed(hospital, question, gaps)
    sums = equations(gaps, filled, str(question.agreed["cox"]["impute"]["target"]))
    return Answer({"equations": sums.suppressed(min_cell).to_dict()})


def answer(hospital: Hospital, question: Question) -> Answer:
    """Answer one question of the fit; ``agreed["cox"]`` says which.

    Parameters
    ----------
    question : Question
        ``agreed["cox"]``: ``want`` (``"sums"``, ``"residuals"``, ``"equations"`` or
        ``"concordance"``), ``beta``, ``grid_months`` (empty for the stratified form),
        ``indicators``, for residuals of a pooled fit ``hazard``, for multiple imputation ``curve``
        and ``impute`` (`client.imputation`), ``replicate`` of a bootstrap (`client.optimism`) and
        the ``fold`` a cross-validation leaves out (`client.cox_folds`).

    Returns
    -------
    Answer
        ``sums`` (CoxSums or CoxGridSums), ``residuals`` (CoxResiduals), ``equations``
        (NormalEquations of an imputation), or ``drawn`` and ``original`` (PairCounts).

    Raises
    ------
    DataError
        If the hospital has fewer patients or events than its own minimum; it then sends nothing.
    PrivacyError
        If the hospital has a privacy policy.
    """
    refuse_unnoised(hospital, question.study, "cox_regression", "a question of the Cox regression")
    section, asked = question.study.regression, _asked(question)
    everyone = hospital.training if section.patients == "training" else hospital.patients
    table = survival_table(hospital, question, list(everyone))
    _require_complete(hospital, question, table)
    min_cell = hospital.config.min_cell
    pooled = section.form == "grid"
    try:
        require_enough(table, min_cell, events_needed=not pooled)
    except DataError as error:
        raise DataError(f"{hospital.name}: {error.sentence}") from error
    if asked["want"] == "equations":
        return _equations(hospital, question, list(everyone))
    if asked["want"] == "concordance":
        return concordance(hospital, question, table)
    table = without_fold(hospital, question, resampled(hospital, question, table))
    if not len(table):
        # The hospital as a whole is what this fold leaves out.
        nobody = CoxSums.empty(table.names, np.asarray(asked["beta"], np.float64), section.ties)
        return Answer({"sums": nobody.to_dict()})
    if asked["want"] == "residuals":
        if pooled:
            hazard = CoxHazard.from_dict(asked["hazard"])
            found = grid_residuals(table, hazard, min_cell=min_cell)
        else:
            found = stratified_residuals(table, asked["beta"], ties=section.ties, min_cell=min_cell)
        return Answer({"residuals": found.suppressed(min_cell).to_dict()})
    if pooled:
        grid = grid_sums(
            table,
            asked["beta"],
            asked["grid_months"],
            min_cell=min_cell,
            max_coarse_months=section.max_coarse_months,
        )
        return Answer({"sums": grid.suppressed(min_cell).to_dict()})
    sums = stratified_sums(table, asked["beta"], ties=section.ties, min_cell=min_cell)
    return Answer({"sums": sums.suppressed(min_cell).to_dict()})


def _require_complete(hospital: Hospital, question: Question, table: SurvivalTable) -> None:
    if len(table) or not has_outcome(hospital.patients):
        return
    absent = [
        name
        for name in question.study.regression.covariates
        if not any(math.isfinite(p.covariates.get(name, math.nan)) for p in hospital.patients)
    ]
    raise DataError(
        f"{hospital.name} has no patient in whom every covariate of the regression is known"
        f"{f' (nobody has {absent[0]})' if absent else ''}; leave the hospital or the covariate "
        "out, or let the study set regression.missing to indicator."
    )


def _asked(question: Question) -> dict[str, Any]:
    asked = question.agreed.get("cox")
    if not isinstance(asked, dict) or not {"want", "beta", "grid_months"} <= asked.keys():
        raise PayloadError(
            "The question about a Cox regression does not say what it wants; both ends must run "
            "the same version."
        )
    return asked


def validate(hospital: Hospital, question: Question) -> Answer:
    """Answer how well the fitted regression ranks patients it was not fitted to.

    A hospital named external judges all its patients, any other those it held out.

    Returns
    -------
    Answer
        ``regression_pairs`` (PairCounts, truncated where the network's are); empty if fewer than
        ``min_cell`` patients can be judged, or some were observed from after time zero only, for
        whom Harrell's pairs are not defined.
    """
    study, min_cell = question.study, hospital.config.min_cell
    patients = validation_patients(hospital, study)
    if len(patients) < max(min_cell, 1):
        return Answer({})
    table = survival_table(hospital, question, patients)
    if len(table) < max(min_cell, 1) or bool((table.start_months > 0).any()):
        return Answer({})
    tau_months = float(question.agreed.get("horizon_months", study.regression.horizon_months))
    pairs = PairCounts.of(
        table.months,
        table.event,
        table.x @ np.asarray(_asked(question)["beta"], np.float64),
        tau_months=tau_months,
        replicates=study.validate_.bootstrap,
        rng=hospital.private_generator(f"{study.name}/validate/bootstrap"),
    )
    return Answer({"regression_pairs": pairs.suppressed(min_cell).to_dict()})
