"""Judging the segmentation network at the hospital; only sums leave.

Axes: N patients, C classes, P phases (ED, ES).
"""

from collections.abc import Sequence

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

__all__ = ["overlap_sums", "overlap_table", "validate"]

PHASES = ("ED", "ES")


def overlap_table(patients: Sequence[Patient], predicted: Sequence[np.ndarray]) -> np.ndarray:
    """Return Dice, HD95 and ASSD (mm) of labelled patients, float64 (N, C, P, 3).

    NaN where undefined, as in `shared_models.metrics.overlap`.

    Raises
    ------
    DataError
        If a patient has no expert masks.
    """
    table = np.full((len(patients), len(CLASS_NAMES), len(PHASES), 3), np.nan)
    for row, (patient, found) in enumerate(zip(patients, predicted, strict=True)):
        expert = patient.labels
        if expert is None:
            raise DataError("A patient without expert masks cannot be judged; leave it out.")
        for column, label in enumerate(CLASS_NAMES):
            for phase in range(len(PHASES)):
                one = agreement(found[phase], expert[phase], label, patient.spacing_mm)
                table[row, column, phase] = (one.dice, one.hd95_mm, one.assd_mm)
    return table


def overlap_sums(table: np.ndarray) -> OverlapSums:
    """Return the sums of some rows of `overlap_table`, by class and phase."""
    return OverlapSums.of(
        *np.moveaxis(table, -1, 0), classes=tuple(CLASS_NAMES.values()), phases=PHASES
    )


def _agreement(
    patients: Sequence[Patient], predicted: Sequence[np.ndarray]
) -> dict[str, AgreementSums]:
    """Return the agreement of volumes, by quantity, of labelled patients."""
    ours, theirs = [], []
    for patient, found in zip(patients, predicted, strict=True):
        if patient.labels is not None:
            ours.append(volumes(found, patient.spacing_mm))
            theirs.append(volumes(patient.labels, patient.spacing_mm))
    return {
        name: AgreementSums.of(
            name,
            predicted=np.array([values[name] for values in ours]),
            reference=np.array([values[name] for values in theirs]),
        )
        for name in QUANTITIES
    }


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
    overlap = overlap_sums(overlap_table(patients, predicted))
    return Answer(
        {
            "overlap": overlap.suppressed(min_cell).to_dict(),
            "agreement": {
                name: sums.suppressed(min_cell).to_dict()
                for name, sums in _agreement(patients, predicted).items()
            },
        }
    )
