"""What the phantom knows and no client may read: one JSON file a hospital, beside the hospitals."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from protocol.errors import DataError
from sim.outcomes import expected_concordance

__all__ = [
    "HospitalTruth",
    "PatientTruth",
    "SeriesTruth",
    "num_right",
    "oracle_concordance",
    "read_series",
    "read_truth",
    "write_series",
    "write_truth",
]


@dataclass(frozen=True)
class PatientTruth:
    """One patient's causes.

    Attributes
    ----------
    edv_ml, esv_ml, mass_g, rv_edv_ml, rv_esv_ml : float
        Analytic volumes at end-diastole and at the cine's end-systolic frame; LV muscle mass.
    lvef_percent : float
        From the two LV volumes.
    scar_percent, grey_percent : float
        Core and grey zone, percent of the LV muscle.
    eta_image, eta_covariates, eta : float
        Log risk and its two parts.
    mask_key : str
        Name of the patient's (2, Z, Y, X) labels in ``<hospital>_masks.npz``.
    """

    patient_id: str
    disease: str
    vendor: str
    field_strength_t: float
    edv_ml: float
    esv_ml: float
    lvef_percent: float
    mass_g: float
    rv_edv_ml: float
    rv_esv_ml: float
    scar_percent: float
    grey_percent: float
    eta_image: float
    eta_covariates: float
    eta: float
    months: float
    event: int
    es_frame: int
    has_expert_mask: bool
    mask_key: str


@dataclass(frozen=True)
class SeriesTruth:
    """What a series, or one part of it, shows; a mixed series has several entries."""

    series_uid: str
    sequence: str
    view: str


@dataclass(frozen=True)
class HospitalTruth:
    """A hospital's patients and its hazard.

    Attributes
    ----------
    baseline_rate : float
        lambda_s, 1/year^shape, frailty included.
    cumulative_hazard_tau : float
        H0 at ``tau_months``.
    oracle_c, oracle_c_image, oracle_c_covariates : float
        Expected concordance up to tau of eta and of its parts, for these patients.
    """

    hospital: str
    seed: int
    tau_months: float
    shape: float
    baseline_rate: float
    cumulative_hazard_tau: float
    oracle_c: float
    oracle_c_image: float
    oracle_c_covariates: float
    patients: tuple[PatientTruth, ...]


def oracle_concordance(truths: Sequence[HospitalTruth]) -> float:
    """Return the oracle concordance of several hospitals' patients taken together.

    Pairs across hospitals count; each patient brings its own hospital's hazard.
    """
    eta = np.array([patient.eta for truth in truths for patient in truth.patients])
    hazard = [[truth.cumulative_hazard_tau] * len(truth.patients) for truth in truths]
    return expected_concordance(eta, np.concatenate(hazard))


def write_truth(path: Path, truth: HospitalTruth) -> None:
    """Write one hospital's truth as JSON."""
    path.write_text(json.dumps(asdict(truth), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_truth(out_dir: Path, hospital: str) -> HospitalTruth:
    """Read ``OUT/truth/<hospital>.json``.

    Raises
    ------
    DataError
        If there is no such file or it was written by another version.
    """
    path = out_dir / "truth" / f"{hospital}.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        patients = tuple(PatientTruth(**patient) for patient in values.pop("patients"))
        return HospitalTruth(patients=patients, **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"truth/{hospital}.json cannot be read as a phantom's truth; make the hospitals again."
        ) from error


def num_right(found: Iterable[SeriesTruth], truth: Iterable[SeriesTruth]) -> int:
    """Return how many entries of ``found`` are true; each true entry counts once."""
    return sum((Counter(found) & Counter(truth)).values())


def write_series(path: Path, series: Sequence[SeriesTruth]) -> None:
    """Write what the series of one hospital are as JSON."""
    rows = [asdict(entry) for entry in series]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read_series(out_dir: Path, hospital: str) -> tuple[SeriesTruth, ...]:
    """Read ``OUT/truth/<hospital>_series.json``; hospitals with ``all_sequences`` have it.

    Raises
    ------
    DataError
        If there is no such file or it was written by another version.
    """
    path = out_dir / "truth" / f"{hospital}_series.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return tuple(SeriesTruth(**row) for row in rows)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"truth/{hospital}_series.json cannot be read; make the hospitals again with "
            "images.all_sequences."
        ) from error
