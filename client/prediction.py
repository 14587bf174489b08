"""What the survival network says of a hospital's patients. Axes: N patients, O outputs, M times."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from client.cohort import Patient
from client.hospital import Hospital
from client.prognosis import prognosis_inputs
from protocol.payload import Question
from shared_models.heads import Head, choose_head
from shared_models.heads.relative_hazard import with_baseline
from shared_models.networks import build
from shared_models.weights import from_arrays

__all__ = ["network_outputs", "predicted_risk", "predicted_survival", "predicting_head"]


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


def predicting_head(question: Question) -> Head:
    """Return the study's head, with the baseline hazard all hospitals agreed on where it needs one.

    Raises
    ------
    ConfigError
        If it needs one and ``agreed["baseline"]`` is missing or no hazard.
    """
    head, baseline = choose_head(question.study.prognosis.head), question.agreed.get("baseline")
    if not head.needs_baseline or not isinstance(baseline, dict):
        return head
    return with_baseline(head, baseline["grid_months"], baseline["hazard"])


def predicted_risk(question: Question, outputs: Tensor) -> np.ndarray:
    """Return each patient's predicted probability of the event by the agreed horizon, (N,)."""
    cuts, end = (
        torch.tensor(months, dtype=torch.float64)
        for months in (question.agreed["cuts_months"], [question.agreed["horizon_months"]])
    )
    head = predicting_head(question)
    return (1 - head.survival_at(outputs, cuts, end).squeeze(1)).numpy()


def predicted_survival(question: Question, outputs: Tensor, months: Sequence[float]) -> np.ndarray:
    """Return each patient's predicted probability to be free of the event at M times, (N, M)."""
    cuts = torch.tensor(question.agreed["cuts_months"], dtype=torch.float64)
    head = predicting_head(question)
    times = torch.tensor(months, dtype=torch.float64)
    return head.survival_at(outputs, cuts, times).clamp(0, 1).numpy()
