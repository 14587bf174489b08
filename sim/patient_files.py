"""Make one phantom patient: draw, scan, write the images and masks, and say what is true of it.

Every patient is drawn from a generator named by (seed, hospital, index), so the bytes depend
neither on the number of workers nor on the order in which they finish.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from protocol.seeds import generator
from sim.config import HospitalConfig, PhantomConfig
from sim.dicom import Identity, Instance, classic_series, make_uid
from sim.enhanced import enhanced_series
from sim.examination import Examination, examine
from sim.masks import SEGMENT_ORDERS, encode_masks
from sim.outcomes import Outcome, baseline_rate, draw_outcome
from sim.patients import Patient, draw_patient
from sim.series import Series
from sim.truth import PatientTruth, SeriesTruth
from sim.vendors import VENDORS

__all__ = ["MadePatient", "PatientTask", "hospital_rate", "make_patient"]

Choice = TypeVar("Choice")

MUSCLE_DENSITY_G_PER_ML = 1.05


@dataclass(frozen=True)
class PatientTask:
    """One patient to be made; everything a worker process needs."""

    config: PhantomConfig
    hospital: HospitalConfig
    folder: Path
    seed: int
    index: int
    patient_id: str
    directory: str
    mask_rank: int | None


@dataclass(frozen=True)
class MadePatient:
    """What the hospital's tables need of a patient whose images are written."""

    truth: PatientTruth
    record: dict[str, float]
    outcome: Outcome
    labels: NDArray[np.uint8]
    series: tuple[SeriesTruth, ...]


def _pick(rng: np.random.Generator, weights: dict[Choice, float]) -> Choice:
    names = sorted(weights, key=str)
    share = np.array([weights[name] for name in names], float)
    return names[int(rng.choice(len(names), p=share / share.sum()))]


def _identity(task: PatientTask, patient: Patient, rng: np.random.Generator) -> Identity:
    year = int(rng.integers(2014, 2021))
    month, day = int(rng.integers(1, 13)), int(rng.integers(1, 29))
    birth = year - int(patient.record["age"])
    return Identity(
        patient_id=task.patient_id,
        patient_name=f"PHANTOM^{task.hospital.name.upper()}{task.index + 1:04d}",
        birth_date=f"{birth}0101",
        sex="M" if patient.record["sex"] else "F",
        weight_kg=patient.record["weight"],
        height_m=patient.record["height"] / 100,
        institution=task.hospital.name,
        uid_root=f"{task.seed}/{task.hospital.name}/{task.index}",
        date=f"{year}{month:02d}{day:02d}",
        time=f"{int(rng.integers(8, 18)):02d}{int(rng.integers(0, 60)):02d}00",
    )


def _encode(
    task: PatientTask, identity: Identity, exam: Examination, rng: np.random.Generator
) -> Iterator[tuple[Series, int, list[list[Instance]]]]:
    """Yield every series with its number and its files, packed as the vendor packs them."""
    profile, quirks = VENDORS[exam.vendor], task.config.quirks
    enhanced = quirks.enhanced and rng.random() < profile.enhanced_share
    number, following = 1, 1
    for series in exam.series:
        number = number if series.part else following
        if enhanced and series.kind in ("cine", "lge"):
            groups = enhanced_series(identity, exam, series, number)
        else:
            order = None
            if profile.shuffled and quirks.shuffle_instances:
                order = rng.permutation(series.stored.shape[0] * series.stored.shape[1]).tolist()
            groups = classic_series(
                identity, exam, series, number, profile.packaging, order,
                private_tags=quirks.private_tags,
            )  # fmt: skip
        following = number + len(groups)
        yield series, number, groups


def _write_images(folder: Path, groups: list[list[Instance]], first: int, part: int) -> None:
    for offset, instances in enumerate(groups):
        series_folder = folder / f"SE{first + offset:04d}"
        series_folder.mkdir(exist_ok=bool(part))
        for index, instance in enumerate(instances, start=1 + 1000 * part):
            (series_folder / f"IM{index:04d}").write_bytes(instance.content)


def make_patient(task: PatientTask) -> MadePatient:
    """Draw, scan, write one patient."""
    hospital, config = task.hospital, task.config

    def stream(purpose: str) -> np.random.Generator:
        return generator(
            task.seed, f"phantom/{purpose}", round_index=task.index, site=hospital.name
        )

    rng = stream("patient")
    disease = _pick(rng, dict(hospital.classes))
    vendor, field_t = _pick(rng, dict(hospital.vendors)), _pick(rng, hospital.field_strengths_t)
    outcomes = config.outcomes
    patient = draw_patient(
        disease, rng, image_sd=outcomes.eta_image_sd, record_sd=outcomes.eta_covariate_sd
    )
    rate = hospital_rate(config, task.seed, hospital.name)
    outcome = draw_outcome(outcomes, rate, patient.eta, stream("outcome"))
    exam = examine(patient, vendor, field_t, config.images, config.quirks, stream("scan"))
    rng = stream("files")
    identity = _identity(task, patient, rng)
    study = task.folder / "dicom" / task.directory / "ST0001"
    study.mkdir(parents=True)
    sorting = []
    for series, first, groups in _encode(task, identity, exam, rng):
        _write_images(study, groups, first, series.part)
        sorting += [
            SeriesTruth(
                make_uid(identity.uid_root, "series", first + offset), series.sequence, series.view
            )
            for offset in range(len(groups))
        ]
        if series.kind == "cine" and task.mask_rank is not None:
            instances = [instance for group in groups for instance in group]
            files = encode_masks(
                identity, series, instances, exam.labels, (0, exam.es_frame),
                SEGMENT_ORDERS[hospital.segments],
            )  # fmt: skip
            for phase, content in enumerate(files, start=1):
                name = f"MK{2 * task.mask_rank + phase:04d}.dcm"
                (task.folder / "masks" / name).write_bytes(content)
    truth = _truth(task, patient, exam, outcome)
    return MadePatient(truth, patient.record, outcome, exam.labels, tuple(sorting))


def _truth(
    task: PatientTask, patient: Patient, exam: Examination, outcome: Outcome
) -> PatientTruth:
    (edv, muscle, rv_edv), (esv, _, rv_esv) = exam.volumes_ml
    return PatientTruth(
        patient_id=task.patient_id,
        disease=patient.disease,
        vendor=exam.vendor,
        field_strength_t=exam.field_t,
        edv_ml=round(edv, 3),
        esv_ml=round(esv, 3),
        lvef_percent=round(100 * (edv - esv) / edv, 3),
        mass_g=round(MUSCLE_DENSITY_G_PER_ML * muscle, 3),
        rv_edv_ml=round(rv_edv, 3),
        rv_esv_ml=round(rv_esv, 3),
        scar_percent=round(patient.burden.core_percent, 4),
        grey_percent=round(patient.burden.grey_percent, 4),
        eta_image=round(patient.eta_image, 6),
        eta_covariates=round(patient.eta_record, 6),
        eta=round(patient.eta, 6),
        months=outcome.months,
        event=outcome.event,
        es_frame=exam.es_frame,
        has_expert_mask=task.mask_rank is not None,
        mask_key=f"patient_{task.index:05d}",
    )


def hospital_rate(config: PhantomConfig, seed: int, hospital: str) -> float:
    """Return the rate of events of a hospital's average patient, with its frailty."""
    frailty = generator(seed, "phantom/frailty", site=hospital).normal()
    return baseline_rate(config.outcomes, config.outcomes.frailty_log_sd * float(frailty))
