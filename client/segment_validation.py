"""Judging the segmentation network at the hospital; only sums leave.

Axes: N patients, C classes, P phases (ED, ES).
"""

import numpy as np

from client.cohort import Patient, labelled
from client.hospital import Hospital
from client.measure import segment_patients
from client.quantities import volumes
from protocol.errors import DataError
from protocol.payload import Answer, Question
from protocol.stats import QUANTITIES, AgreementSums, OverlapSums
from shared_models.labels import CLASS_NAMES
from shared_models.metrics.overlap import agreement

__all__ = ["overlap_and_agreement", "validate"]

PHASES = ("ED", "ES")


def overlap_and_agreement(
    patients: list[Patient], predicted: list[np.ndarray]
) -> tuple[OverlapSums, dict[str, AgreementSums]]:
    """Return overlap by class and phase, and agreement of volumes, of labelled patients."""
    table = np.full((len(patients), len(CLASS_NAMES), len(PHASES), 3), np.nan)
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for row, (patient, found) in enumerate(zip(patients, predicted, strict=True)):
        expert = patient.labels
        if expert is None:
            raise DataError("A patient without expert masks cannot be judged; leave it out.")
        for column, label in enumerate(CLASS_NAMES):
            for phase in range(len(PHASES)):
                one = agreement(found[phase], expert[phase], label, patient.spacing_mm)
                table[row, column, phase] = (one.dice, one.hd95_mm, one.assd_mm)
        ours.append(volumes(found, patient.spacing_mm))
        theirs.append(volumes(expert, patient.spacing_mm))
    overlap = OverlapSums.of(
        *np.moveaxis(table, -1, 0), classes=tuple(CLASS_NAMES.values()), phases=PHASES
    )
    agreements = {
        name: AgreementSums.of(
            name,
            predicted=np.array([values[name] for values in ours]),
            reference=np.array([values[name] for values in theirs]),
        )
        for name in QUANTITIES
    }
    return overlap, agreements


def validate(hospital: Hospital, question: Question) -> Answer:
    """Answer overlap with the experts' masks and agreement of the volumes.

    A hospital named external judges all its labelled patients, any other those it held out.

    Returns
    -------
    Answer
        ``overlap`` (OverlapSums) and ``agreement`` (AgreementSums by quantity); empty where fewer
        than ``min_cell`` patients could be judged.
    """
    study, min_cell = question.study, hospital.config.min_cell
    external = hospital.name in study.hospitals.external
    patients = labelled(hospital.patients if external else hospital.held_out)
    if len(patients) < min_cell:
        return Answer({})
    predicted = segment_patients(hospital, study, question.arrays or {}, patients)
    overlap, agreements = overlap_and_agreement(patients, predicted)
    return Answer(
        {
            "overlap": overlap.suppressed(min_cell).to_dict(),
            "agreement": {
                name: sums.suppressed(min_cell).to_dict() for name, sums in agreements.items()
            },
        }
    )
