"""What is measured of one patient, by the names a study may ask for.

Axes: Z slices base to apex, Y rows, X columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from scipy import ndimage

from client.cohort import Patient
from shared_models.clinical import (
    scar_fwhm,
    scar_n_sd,
    scar_percent,
    ventricular_function,
    wall_thickness,
)
from shared_models.labels import MYO

__all__ = ["FUNCTION", "MEASUREMENTS", "measure_patient", "volumes"]

IN_PLANE_CROSS = ndimage.generate_binary_structure(2, 1)[None]
FUNCTION = (
    "lv_edv_ml",
    "lv_esv_ml",
    "lv_sv_ml",
    "lv_ef_percent",
    "lv_mass_g",
    "rv_edv_ml",
    "rv_esv_ml",
    "rv_sv_ml",
    "rv_ef_percent",
)


def volumes(labels: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Return volumes, ejection fractions and mass from labels (2, Z, Y, X), ED then ES."""
    return asdict(ventricular_function(labels[0], labels[1], spacing_mm))


def _volume(name: str) -> Callable[[Patient, np.ndarray], float]:
    return lambda patient, labels: volumes(labels, patient.spacing_mm)[name]


def _thickness(patient: Patient, labels: np.ndarray) -> float:
    return wall_thickness(labels[0], patient.spacing_mm).max_mm


def _mean_thickness(patient: Patient, labels: np.ndarray) -> float:
    return wall_thickness(labels[0], patient.spacing_mm).mean_mm


def _scar(
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[Patient, np.ndarray], float]:
    def percent(patient: Patient, labels: np.ndarray) -> float:
        if patient.lge is None or not patient.lge_present.any():
            return float("nan")
        # LGE is acquired in diastole, so the wall at ED is where it lies; its border pixels share
        # the blood's or the fat's signal, the more so when a breath-hold shifted the slice.
        wall = ndimage.binary_erosion(labels[0] == MYO, IN_PLANE_CROSS)
        myocardium = wall & patient.lge_present[:, None, None].astype(bool)
        return scar_percent(rule(patient.lge, myocardium), myocardium)

    return percent


MEASUREMENTS: dict[str, Callable[[Patient, np.ndarray], float]] = {
    **{name: _volume(name) for name in FUNCTION},
    "wall_thickness_max_mm": _thickness,
    "wall_thickness_mean_mm": _mean_thickness,
    "scar_5sd_percent": _scar(scar_n_sd),
    "scar_fwhm_percent": _scar(scar_fwhm),
}
"""Each measurement as a function of a patient and its predicted labels (2, Z, Y, X)."""


def measure_patient(patient: Patient, labels: np.ndarray, names: Sequence[str]) -> list[float]:
    """Return the named measurements of one patient, NaN where undefined.

    Parameters
    ----------
    labels : numpy.ndarray
        uint8 (2, Z, Y, X), predicted, ED then ES.
    names : sequence of str
        Keys of `MEASUREMENTS`.
    """
    return [MEASUREMENTS[name](patient, labels) for name in names]
