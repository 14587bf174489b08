"""How far the survival network's predictions are right, at the hospital: sums in two passes.

First (with `client.prognosis_validation.validate`) the table of scores, times and status, from
which the centre derives the common censoring curve G; then everything that is weighted by 1 / G.
Each answer is suppressed by the hospital's own ``min_cell``. A horizon at which the Brier score is
withheld, since it or its difference to a neighbour rests on few patients, is withheld in AUC and
calibration too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from client.asked import allow
from client.hospital import Hospital
from client.prediction import network_outputs, predicted_risk, predicted_survival
from client.regression import baseline_risk
from client.survey import judged_patients
from protocol.evaluation import EvaluationPlan, Role, horizon_key
from protocol.payload import Answer, Question
from protocol.stats import ScoreTable
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table
from protocol.stats.reclassification import move_table
from protocol.stats.sums import FloatArray
from protocol.stats.timed_pairs import antolini_pairs, auc_pairs, uno_pairs
from protocol.stats.whole_table import suppressed_whole

__all__ = ["Judged", "calibrate", "score_sums", "weigh"]

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Judged:
    """The patients a network is judged on, and what it says of them."""

    hospital: Hospital
    question: Question
    plan: EvaluationPlan
    role: Role
    keys: tuple[str, ...]
    months: FloatArray
    event: FloatArray
    outputs: Tensor

    @classmethod
    def of(cls, hospital: Hospital, question: Question) -> "Judged | None":
        """Return them, or None where fewer than ``min_cell`` can be judged.

        Nobody is judged where some came under observation after time zero: the network takes them
        for at risk before.
        """
        patients = judged_patients(hospital, question.study)
        late = any(patient.start_months > 0 for patient in patients)
        if late or len(patients) < max(hospital.config.min_cell, 1):
            return None
        return cls(
            hospital,
            question,
            EvaluationPlan.from_dict(question.agreed.get("evaluation")),
            "external" if hospital.name in question.study.hospitals.external else "train",
            tuple(patient.key for patient in patients),
            np.array([patient.months for patient in patients]),
            np.array([float(patient.event) for patient in patients]),
            network_outputs(hospital, question, patients),
        )

    @property
    def min_cell(self) -> int:
        return self.hospital.config.min_cell

    def survival(self, months: tuple[float, ...]) -> FloatArray:
        """Return S at common times, (N, M)."""
        return predicted_survival(self.question, self.outputs, months)

    def own_survival(self) -> tuple[FloatArray, FloatArray]:
        """Return S at each patient's own time, (N,), and the event; who passes the end stops there.

        In chunks: all patients at all patients' times would be a large table.
        """
        months = np.minimum(self.months, self.plan.end_months)
        own = np.empty(len(months))
        for first in range(0, len(months), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            table = predicted_survival(self.question, self.outputs[rows], months[rows].tolist())
            own[rows] = np.diagonal(table)
        return own, self.event * (self.months <= self.plan.end_months)

    def resamples(self, measure: str) -> dict[str, Any]:
        """Return the keyword arguments of a measure's bootstrap.

        Drawn anew for each measure: rows of one draw in several measures would be several
        equations in the same patients.
        """
        study = self.question.study
        purpose = f"{study.name}/validate/{measure}"
        rng = self.hospital.private_generator(purpose)
        return {"replicates": study.validate_.bootstrap, "rng": rng}


def score_sums(judged: Judged) -> dict[str, Any]:
    """Return the first pass: score table, bands of the decision curve, moves against the baseline.

    ``moves`` only where the study has a Cox regression with a baseline hazard.
    """
    plan, grid = judged.plan, judged.plan.grid_months
    risk = predicted_risk(judged.question, judged.outputs)
    outcome = (judged.months, judged.event)
    table = ScoreTable.of(*outcome, risk, edges=plan.score_edges, grid_months=grid)
    bands = band_table(*outcome, risk, thresholds=plan.thresholds, grid_months=grid)
    sums: dict[str, Any] = {
        "score_table": table.suppressed(judged.min_cell).to_dict(),
        "bands": bands.suppressed(judged.min_cell).to_dict(),
    }
    if plan.baseline_months:
        known = baseline_risk(judged.hospital, judged.question, plan)
        at = [index for index, key in enumerate(judged.keys) if key in known]
        moves = move_table(
            judged.months[at],
            judged.event[at],
            np.array([known[judged.keys[index]] for index in at]),
            risk[at],
            cuts=tuple(judged.question.agreed["risk_cuts"]),
            grid_months=grid,
        )
        sums["moves"] = suppressed_whole(moves, judged.min_cell).to_dict()
    return sums


def weigh(hospital: Hospital, question: Question) -> Answer:
    """Answer the second pass, everything weighted by ``1 / G``.

    Returns
    -------
    Answer
        ``evaluation``: ``uno``, ``antolini``, ``brier``, ``d_calibration``, ``auc`` by horizon, and
        the ``steps`` of the calibration curves that are asked; empty if fewer than ``min_cell``
        patients can be judged.

    Raises
    ------
    DataError
        If the model was asked about in another way before (`client.asked`).
    """
    judged = Judged.of(hospital, question)
    if judged is None or judged.role not in judged.plan.censoring:
        return Answer({})
    censoring = _allowed(judged)
    brier = _brier(judged, censoring)
    outcome, end = (judged.months, judged.event), judged.plan.end_months
    risk = predicted_risk(question, judged.outputs)
    uno = uno_pairs(*outcome, risk, tau_months=end, censoring=censoring, **judged.resamples("uno"))
    grid = judged.plan.grid_months
    antolini = antolini_pairs(
        *outcome,
        judged.survival(grid),
        grid_months=grid,
        tau_months=end,
        **judged.resamples("antolini"),
    )
    own = DCalibration.of(
        *judged.own_survival(), num_bins=question.study.validate_.calibration_groups
    )
    sums = {"uno": uno, "antolini": antolini, "brier": brier, "d_calibration": own}
    told = {name: part.suppressed(judged.min_cell).to_dict() for name, part in sums.items()}
    auc = dict(_auc(judged, censoring, brier))
    return Answer({"evaluation": {**told, "auc": auc}, "steps": _steps(judged, censoring, brier)})


def calibrate(hospital: Hospital, question: Question) -> Answer:
    """Answer about calibration curves: ``steps``, and with fitted ones (``agreed``) ``errors``.

    Returns
    -------
    Answer
        Lists in the order of the hospital's own curves in the plan; empty if fewer than
        ``min_cell`` patients can be judged.
    """
    judged = Judged.of(hospital, question)
    if judged is None or judged.role not in judged.plan.censoring:
        return Answer({})
    censoring = _allowed(judged)
    brier = _brier(judged, censoring)
    if question.agreed.get("calibration_fitted") is True:
        return Answer({"errors": _errors(judged, brier)})
    return Answer({"steps": _steps(judged, censoring, brier)})


def _allowed(judged: Judged) -> CensoringCurve:
    question = judged.question
    return allow(judged.hospital, question.study, question.arrays or {}, judged.plan, judged.role)


def _brier(judged: Judged, censoring: CensoringCurve) -> BrierSums:
    cuts = judged.question.agreed["cuts_months"]
    horizons = tuple(sorted({*cuts, *judged.plan.horizons_months}))
    return BrierSums.of(
        judged.months,
        judged.event,
        judged.survival(horizons),
        horizons_months=horizons,
        censoring=censoring,
        **judged.resamples("brier"),
    )


def _told(judged: Judged, brier: BrierSums, horizon: float) -> bool:
    """Whether a horizon stands apart from its neighbours by enough patients to be told."""
    kept = brier.suppressed(judged.min_cell)
    return int(kept.withheld[kept.horizons_months.index(horizon)]) == 0


def _auc(
    judged: Judged, censoring: CensoringCurve, brier: BrierSums
) -> Iterator[tuple[str, dict[str, Any]]]:
    for horizon in judged.plan.horizons_months:
        if not _told(judged, brier, horizon):
            continue
        pairs = auc_pairs(
            judged.months,
            judged.event,
            1 - judged.survival((horizon,))[:, 0],
            horizon_months=horizon,
            censoring=censoring,
            **judged.resamples(f"auc/{horizon_key(horizon)}"),
        )
        yield horizon_key(horizon), pairs.suppressed(judged.min_cell).to_dict()


def _steps(judged: Judged, censoring: CensoringCurve, brier: BrierSums) -> list[dict[str, Any]]:
    steps = []
    for asked in judged.plan.curves:
        if asked.role != judged.role:
            continue
        horizon = asked.horizon_months
        step = CalibrationStep.empty(asked.curve, horizon)
        if _told(judged, brier, horizon):
            step = CalibrationStep.of(
                judged.months,
                judged.event,
                1 - judged.survival((horizon,))[:, 0],
                curve=asked.curve,
                horizon_months=horizon,
                censoring=censoring,
            ).suppressed(judged.min_cell)
        steps.append(step.to_dict())
    return steps


def _errors(judged: Judged, brier: BrierSums) -> list[dict[str, Any]]:
    errors = []
    for asked in judged.plan.curves:
        if asked.role != judged.role:
            continue
        found = CalibrationErrors.empty()
        if _told(judged, brier, asked.horizon_months):
            predicted = 1 - judged.survival((asked.horizon_months,))[:, 0]
            found = CalibrationErrors.of(predicted, asked.curve)
        errors.append(found.suppressed(judged.min_cell).to_dict())
    return errors
