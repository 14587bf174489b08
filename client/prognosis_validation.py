"""Judging the survival network at the hospital; only sums and suppressed tables leave."""

import numpy as np

from client.evaluation import score_sums
from client.hospital import Hospital
from client.judged import Judged
from client.prediction import network_outputs, predicted_risk, predicted_survival
from client.survey import has_outcome
from protocol.evaluation import SCORE_BINS, group_names, horizon_key
from protocol.payload import Answer, Question
from protocol.stats import (
    Calibration,
    Histogram,
    LifeTable,
    PairCounts,
    monthly_grid,
    risk_group,
)

__all__ = ["scores", "validate"]


def scores(hospital: Hospital, question: Question) -> Answer:
    """Answer histograms of the training patients' predicted risks, suppressed.

    Returns
    -------
    Answer
        ``scores`` of the risk by the agreed horizon, ``scores_at`` by each named horizon.
    """
    outputs = network_outputs(hospital, question, has_outcome(hospital.training))
    min_cell, horizons = hospital.config.min_cell, question.agreed["horizons_months"]
    survival = predicted_survival(question, outputs, horizons)
    at = {
        horizon_key(horizon): _histogram(1 - survival[:, index]).suppressed(min_cell).to_dict()
        for index, horizon in enumerate(horizons)
    }
    risk = _histogram(predicted_risk(question, outputs)).suppressed(min_cell)
    return Answer({"scores": risk.to_dict(), "scores_at": at})


def _histogram(risk: np.ndarray) -> Histogram:
    return Histogram.of(risk, lo=0.0, hi=1.0, num_bins=SCORE_BINS)


def validate(hospital: Hospital, question: Question) -> Answer:
    """Answer discrimination, calibration and survival by risk group.

    A hospital named external judges all its patients, any other those it held out.

    Returns
    -------
    Answer
        ``pairs`` (PairCounts), ``life_table`` (LifeTable by risk group), ``calibration`` and
        ``evaluation`` (the first pass of `client.evaluation`); empty if fewer than ``min_cell``
        patients have an outcome, or some came under observation after time zero.
    """
    study, agreed, min_cell = question.study, question.agreed, hospital.config.min_cell
    judged = Judged.of(hospital, question)
    if judged is None:
        return Answer({})
    months, event = judged.months, judged.event
    risk = predicted_risk(question, judged.outputs)
    horizon = float(agreed["horizon_months"])
    grid = monthly_grid(horizon)
    names = group_names(study.validate_.risk_groups)
    pairs = PairCounts.of(
        months,
        event,
        risk,
        tau_months=horizon,
        replicates=study.validate_.bootstrap,
        # Not from the study's seed: the centre knows that one, and with the draws known it could
        # solve the replicates for every comparable pair.
        rng=hospital.private_generator(f"{study.name}/validate/bootstrap"),
    )
    table = LifeTable.of(
        months, event, risk_group(risk, agreed["risk_cuts"]), grid_months=grid, names=names
    )
    calibration = Calibration.of(
        months, event, risk, cuts=tuple(agreed["calibration_cuts"]), grid_months=grid
    )
    return Answer(
        {
            "pairs": pairs.suppressed(min_cell).to_dict(),
            "life_table": table.suppressed(min_cell).to_dict(),
            "calibration": calibration.suppressed(min_cell).to_dict(),
            "evaluation": score_sums(judged),
        }
    )
