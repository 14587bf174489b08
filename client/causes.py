"""Judging competing risks at the hospital: each cause's incidence, seen and predicted.

Only sums leave: a table of events by cause (from which the centre draws Aalen-Johansen), moments of
the predicted incidence, and pair counts.
"""

import numpy as np
import torch

from client.hospital import Hospital
from client.prediction import network_outputs
from client.prognosis import outcomes, require_causes
from client.survey import validation_patients
from protocol.errors import PayloadError
from protocol.payload import Answer, Question
from protocol.stats import Moments, PairCounts
from protocol.stats.cumulative_incidence import CauseTable
from shared_models.heads import choose_head
from shared_models.heads.competing_risks import incidence_at

__all__ = ["judge", "kept_at_risk"]


def kept_at_risk(
    months: np.ndarray, cause: np.ndarray, number: int, tau_months: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return months and event, (N,) each, with which one cause's pairs are counted.

    Whoever had another cause first never gets this one, and so is compared as one who is still
    without it at the truncation (Wolbers et al., Epidemiology 2009;20:555).

    Parameters
    ----------
    months : float array (N,)
        Time to the first event of any cause, or censoring.
    cause : int array (N,)
        0 censored, 1.. the cause.
    number : int
        The cause, from 1.
    tau_months : float
        Truncation.
    """
    other = (cause > 0) & (cause != number)
    return np.where(other, np.maximum(months, tau_months + 1.0), months), (cause == number) * 1


def judge(hospital: Hospital, question: Question) -> Answer:
    """Answer how far each cause's predicted incidence is that which was seen.

    A hospital named external judges all its patients, any other those it held out.

    Returns
    -------
    Answer
        ``table`` (CauseTable on the ends of the intervals), ``predicted`` by cause (Moments, one
        variable an end of an interval), ``pairs`` by cause (PairCounts of the incidence by the last
        end); empty if fewer than ``min_cell`` patients can be judged, or some came under
        observation after time zero.

    Raises
    ------
    DataError
        If the hospital's table does not tell the causes apart.
    PayloadError
        If the study has no competing risks.
    """
    study, min_cell = question.study, hospital.config.min_cell
    names, cuts = study.prognosis.causes, [float(cut) for cut in question.agreed["cuts_months"]]
    if study.prognosis.num_causes < 2:
        raise PayloadError("The study has no competing risks to judge; ask about its one event.")
    require_causes(hospital, len(names))
    patients = validation_patients(hospital, study)
    late = any(patient.start_months > 0 for patient in patients)
    if late or len(patients) < max(min_cell, 1):
        return Answer({})
    months, cause = outcomes(patients, choose_head(study.prognosis.head))
    points = torch.tensor(cuts, dtype=torch.float64)
    outputs = network_outputs(hospital, question, patients)
    incidence = incidence_at(outputs, points, points, len(names)).numpy()
    table = CauseTable.of(months, cause, grid_months=(0.0, *cuts), causes=names)
    ends = tuple(f"{cut:g}" for cut in cuts)
    predicted = {
        name: Moments.of(ends, incidence[:, at]).suppressed(min_cell).to_dict()
        for at, name in enumerate(names)
    }
    pairs = {}
    for at, name in enumerate(names):
        kept = kept_at_risk(months, cause, at + 1, cuts[-1])
        counted = PairCounts.of(
            *kept,
            incidence[:, at, -1],
            tau_months=cuts[-1],
            replicates=study.validate_.bootstrap,
            rng=hospital.private_generator(f"{study.name}/causes/{name}"),
        )
        pairs[name] = counted.suppressed(min_cell).to_dict()
    return Answer(
        {"table": table.suppressed(min_cell).to_dict(), "predicted": predicted, "pairs": pairs}
    )
