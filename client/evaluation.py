"""How far the survival network's predictions are right, at the hospital: sums in two passes.

First (with `client.prognosis_validation.validate`) the table of scores, times and status, from
which the centre derives the common censoring curve G; then everything that is weighted by 1 / G.
Each answer is suppressed by the hospital's own ``min_cell``. A horizon at which the Brier score is
withheld, since it or its difference to a neighbour rests on few patients, is withheld in AUC and
calibration too.

Every answer by itself holds no cell of fewer than ``min_cell`` patients. Score table, risk groups,
calibration groups and bands are different partitions of the same patients, though, and one who lays
them over each other can find some cells that are smaller; nothing short of noise prevents that.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from client.asked import allow
from client.hospital import Hospital
from client.judged import Judged
from client.prediction import predicted_risk
from client.regression import baseline_risk
from protocol.evaluation import horizon_key
from protocol.payload import Answer, Question
from protocol.stats import ScoreTable
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table
from protocol.stats.reclassification import move_table
from protocol.stats.timed_pairs import antolini_pairs, auc_pairs, uno_pairs
from protocol.stats.whole_table import suppressed_whole

__all__ = ["calibrate", "score_sums", "weigh"]


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
    min_cell = hospital.config.min_cell
    sums = {
        "uno": uno.suppressed(min_cell).to_dict(),
        "antolini": antolini.suppressed(min_cell).to_dict(),
        "brier": brier.suppressed(min_cell).to_dict(),
        "d_calibration": own.suppressed(min_cell).to_dict(),
        "auc": dict(_auc(judged, censoring, brier)),
    }
    return Answer({"evaluation": sums, "steps": _steps(judged, censoring, brier)})


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
    # Only its counts are asked for, which need no resampling.
    brier = _brier(judged, censoring, resampled=False)
    if question.agreed.get("calibration_fitted") is True:
        return Answer({"errors": _errors(judged, brier)})
    return Answer({"steps": _steps(judged, censoring, brier)})


def _allowed(judged: Judged) -> CensoringCurve:
    question = judged.question
    return allow(judged.hospital, question.study, question.arrays or {}, judged.plan, judged.role)


def _brier(judged: Judged, censoring: CensoringCurve, resampled: bool = True) -> BrierSums:
    # A network may predict beyond the end of the plan's grid, where too few remain to judge it.
    cuts = [cut for cut in judged.question.agreed["cuts_months"] if cut <= judged.plan.end_months]
    horizons = tuple(sorted({*cuts, *judged.plan.horizons_months}))
    return BrierSums.of(
        judged.months,
        judged.event,
        judged.survival(horizons),
        horizons_months=horizons,
        censoring=censoring,
        **(judged.resamples("brier") if resampled else {}),
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
