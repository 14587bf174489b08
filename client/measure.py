"""The measure stage at the hospital: segment its own studies, keep quantities and crops.

Only the moments of the quantities leave, and only suppressed. Axes: N patients, Z slices base to
apex, Y rows, X columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from client.cohort import Patient
from client.crop import crop_heart
from client.hospital import Hospital
from client.quantities import MEASUREMENTS, measure_patient
from protocol.arrays import Arrays, fingerprint
from protocol.config import Study
from protocol.errors import ConfigError, DataError
from protocol.payload import Answer, Question
from protocol.stats import Moments
from shared_models.inference import predict_labels
from shared_models.networks import build
from shared_models.postprocess import clean_labels
from shared_models.weights import from_arrays

__all__ = ["Measured", "load_measured", "measure", "segment_patients", "training_values"]


@dataclass(frozen=True)
class Measured:
    """What the network made of each patient of a hospital.

    Attributes
    ----------
    row : dict
        Row of each patient by pseudonymous key.
    images : numpy.ndarray
        float32 (N, 3, Z, Y, X): LGE, cine ED, cine ES around the left ventricle.
    slice_present : numpy.ndarray
        float32 (N, Z), 1 where the slice exists (shorter stacks are padded at the apex).
    values : numpy.ndarray
        float64 (N, Q), the study's measurements in clinical units, NaN where undefined.
    """

    row: dict[str, int]
    images: np.ndarray
    slice_present: np.ndarray
    values: np.ndarray


def segment_patients(
    hospital: Hospital, study: Study, arrays: Arrays, patients: Sequence[Patient]
) -> list[np.ndarray]:
    """Return the predicted labels uint8 (2, Z, Y, X) of each patient (ED, ES)."""
    network = study.segment.network
    model = build(network.name, network.options)
    from_arrays(model, arrays)
    slices = [torch.from_numpy(p.cine.reshape(-1, 1, *p.cine.shape[2:])) for p in patients]
    labels = predict_labels(model, torch.cat(slices), hospital.execution).numpy()
    parts = np.split(labels, np.cumsum([len(part) for part in slices])[:-1])
    return [
        clean_labels(part.reshape(p.cine.shape)) for part, p in zip(parts, patients, strict=True)
    ]


def measure(hospital: Hospital, question: Question) -> Answer:
    """Measure with the study's segmentation network and keep the result on disk.

    Returns
    -------
    Answer
        ``measurements``: suppressed Moments of the training patients.
    """
    names = question.study.prognosis.measurements
    moments = Moments.of(names, training_values(hospital, question))
    return Answer({"measurements": moments.suppressed(hospital.config.min_cell).to_dict()})


def training_values(hospital: Hospital, question: Question) -> np.ndarray:
    """Measure, keep the result on disk, and return the training patients' values, float64 (N, Q).

    Every patient is measured; of a hospital that only validates on its held-out patients these.

    Raises
    ------
    DataError
        If the question brings no network.
    ConfigError
        If the study asks for a measurement that does not exist.
    """
    study, section = question.study, question.study.prognosis
    if question.arrays is None:
        raise DataError("The measure stage came without a segmentation network; run segment first.")
    unknown = sorted(set(section.measurements) - MEASUREMENTS.keys())
    if unknown:
        raise ConfigError(
            f"The study asks for '{unknown[0]}', which is no measurement; choose from "
            f"{', '.join(MEASUREMENTS)}."
        )
    internal = hospital.name in study.hospitals.internal
    patients = hospital.held_out if internal else hospital.patients
    if not all(patient.has_images for patient in patients):
        raise DataError(
            f"{hospital.name} has no images to measure; name it in a study without the stages "
            "segment and measure."
        )
    if not patients:
        return np.empty((0, len(section.measurements)))
    labels = segment_patients(hospital, study, question.arrays, patients)
    rows = [
        measure_patient(p, found, section.measurements)
        for p, found in zip(patients, labels, strict=True)
    ]
    values = np.array(rows, dtype=np.float64).reshape(len(patients), len(section.measurements))
    crops = [crop_heart(p, found, section) for p, found in zip(patients, labels, strict=True)]
    _save(
        _path(hospital, study, fingerprint(question.arrays)),
        [p.key for p in patients],
        np.stack([images for images, _ in crops]),
        np.stack([present for _, present in crops]),
        values,
    )
    return values[: 0 if internal else len(hospital.training)]


def _path(hospital: Hospital, study: Study, segmentation: str) -> Path:
    # Named by what it depends on: other weights or other data never read a stale file.
    name = f"measured-{segmentation[:16]}-{hospital.fingerprint}.safetensors"
    return hospital.workspace(study) / name


def _save(
    path: Path, keys: list[str], images: np.ndarray, present: np.ndarray, values: np.ndarray
) -> None:
    for old in path.parent.glob("measured-*.safetensors"):
        old.unlink()
    partial = path.with_suffix(".partial")
    save_file(
        {
            "images": images.astype(np.float16),
            "slice_present": present.astype(np.uint8),
            "values": values,
            "keys": np.frombuffer("".join(keys).encode(), dtype=np.uint8).reshape(len(keys), -1),
        },
        partial,
    )
    partial.replace(path)


def load_measured(hospital: Hospital, study: Study, segmentation: str) -> Measured:
    """Read what `measure` kept for one segmentation network, named by its fingerprint.

    Raises
    ------
    DataError
        If this hospital has not measured with that network.
    """
    try:
        arrays = load_file(_path(hospital, study, segmentation))
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{hospital.name} has no measurements by the study's segmentation network; run the "
            "measure stage again."
        ) from error
    keys = [bytes(key).decode() for key in arrays["keys"]]
    return Measured(
        {key: row for row, key in enumerate(keys)},
        arrays["images"].astype(np.float32),
        arrays["slice_present"].astype(np.float32),
        arrays["values"],
    )
