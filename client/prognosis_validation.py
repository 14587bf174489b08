"""Judging the survival network at the hospital; only sums and suppressed tables leave."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from client.cohort import Patient
from client.hospital import Hospital
from client.prognosis import prognosis_inputs
from client.survey import has_outcome
from protocol.config import Study
from protocol.payload import Answer, Question
from protocol.stats import (
    Calibration,
    Histogram,
    LifeTable,
    PairCounts,
    monthly_grid,
    risk_group,
)
from shared_models.heads import choose_head
from shared_models.networks import build
from shared_models.weights import from_arrays

__all__ = [
    "SCORE_BINS",
    "judged_patients",
    "network_outputs",
    "predicted_risk",
    "predicted_survival",
    "scores",
    "validate",
]

SCORE_BINS = 200
GROUP_NAMES = {2: ("low", "high"), 3: ("low", "middle", "high")}


def judged_patients(hospital: Hospital, study: Study) -> list[Patient]:
    """Return whom the hospital judges a model on: external all, others those they held out."""
    external = hospital.name in study.hospitals.external
    return has_outcome(hospital.patients if external else hospital.held_out)


def network_outputs(hospital: Hospital, question: Question, patients: list[Patient]) -> Tensor:
    """Return what the network says of each patient, float64 (N, O), in the meaning of its head."""
    study = question.study
    model = build(study.prognosis.network.name, study.prognosis.network_options())
    from_arrays(model, question.arrays or {})
    inputs = prognosis_inputs(hospital, study, question.agreed, patients)
    model.eval()
    with hospital.execution.active(), torch.no_grad():
        outputs = model(
            inputs["images"], inputs["slice_present"], inputs["tabular"], inputs["missing"]
        )
    # In float64 two patients whose outputs differ have different risks, however small both are.
    return outputs.double()


def predicted_risk(question: Question, outputs: Tensor) -> np.ndarray:
    """Return each patient's predicted probability of the event by the end of the grid, (N,)."""
    cuts = torch.tensor(question.agreed["cuts_months"], dtype=torch.float64)
    return choose_head(question.study.prognosis.head).risk(outputs, cuts).numpy()


def predicted_survival(question: Question, outputs: Tensor, months: Sequence[float]) -> np.ndarray:
    """Return each patient's predicted probability to be free of the event at M times, (N, M)."""
    cuts = torch.tensor(question.agreed["cuts_months"], dtype=torch.float64)
    head = choose_head(question.study.prognosis.head)
    times = torch.tensor(months, dtype=torch.float64)
    return head.survival_at(outputs, cuts, times).clamp(0, 1).numpy()


def scores(hospital: Hospital, question: Question) -> Answer:
    """Answer the histogram of the training patients' predicted risks, suppressed."""
    patients = has_outcome(hospital.training)
    risk = predicted_risk(question, network_outputs(hospital, question, patients))
    histogram = Histogram.of(risk, lo=0.0, hi=1.0, num_bins=SCORE_BINS)
    return Answer({"scores": histogram.suppressed(hospital.config.min_cell).to_dict()})


def validate(hospital: Hospital, question: Question) -> Answer:
    """Answer discrimination, calibration and survival by risk group.

    A hospital named external judges all its patients, any other those it held out.

    Returns
    -------
    Answer
        ``pairs`` (PairCounts), ``life_table`` (LifeTable by risk group) and ``calibration``; empty
        if fewer than ``min_cell`` patients have an outcome.
    """
    study, agreed, min_cell = question.study, question.agreed, hospital.config.min_cell
    patients = judged_patients(hospital, study)
    if len(patients) < max(min_cell, 1):
        return Answer({})
    risk = predicted_risk(question, network_outputs(hospital, question, patients))
    months = np.array([patient.months for patient in patients])
    event = np.array([patient.event for patient in patients])
    horizon = float(agreed["cuts_months"][-1])
    grid = monthly_grid(horizon)
    num_groups = study.validate_.risk_groups
    names = GROUP_NAMES.get(num_groups) or tuple(f"group {k + 1}" for k in range(num_groups))
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
        }
    )
