"""Example images with contours for the report; possible only because the patients are phantoms or
public, and drawn outside the centre's code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from client.cohort import labelled
from client.hospital import open_hospital
from client.measure import segment_patients
from protocol.config import Study
from server.report.examples import Example
from shared_models.labels import LV, MYO
from shared_models.weights import load

__all__ = ["examples"]

PHASES = ("end-diastole", "end-systole")


def examples(study: Study, sites: Mapping[str, Path], run_dir: Path, number: int) -> list[Example]:
    """Return example slices: mid-ventricular, alternating ED and ES, external hospitals first.

    Parameters
    ----------
    number : int
        At most so many.
    """
    model = run_dir / "segment" / "final.safetensors"
    if not number or not model.is_file():
        return []
    arrays, _ = load(model)
    drawn: list[Example] = []
    for name in (*study.hospitals.external, *study.hospitals.train):
        hospital = open_hospital(sites[name], study)
        external = name in study.hospitals.external
        pool = labelled(hospital.patients if external else hospital.held_out)
        patients = pool[: max(1, number // 2) if external else 1]
        if not patients:
            continue
        for index, (patient, predicted) in enumerate(
            zip(patients, segment_patients(hospital, study, arrays, patients), strict=True)
        ):
            phase = (len(drawn)) % 2
            reference = patient.labels[phase] if patient.labels is not None else None
            heart = (predicted[phase] == LV) | (predicted[phase] == MYO)
            row = int(np.argmax(heart.sum(axis=(1, 2))))
            drawn.append(
                Example(
                    title=f"{name}, example {index + 1}, {PHASES[phase]}",
                    image=patient.cine[phase, row],
                    predicted=predicted[phase, row],
                    reference=None if reference is None else reference[row],
                    spacing_mm=study.preprocessing.spacing_mm,
                )
            )
            if len(drawn) == number:
                return drawn
    return drawn
