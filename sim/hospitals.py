"""Write phantom hospitals: each directory as a real hospital would hand it over, the truth apart.

Every patient is drawn from a generator named by (seed, hospital, index), so the bytes depend
neither on the number of workers nor on the order in which they finish.
"""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from client.policy import POLICY_FILE
from protocol.errors import ConfigError
from protocol.seeds import derive_seed, generator
from shared_models.labels import CLASS_NAMES
from sim.config import HospitalConfig, PhantomConfig
from sim.dicom import Identity, Instance, classic_series, make_uid
from sim.enhanced import enhanced_series
from sim.examination import Examination, examine
from sim.masks import SEGMENT_ORDERS, encode_masks
from sim.outcomes import (
    Outcome,
    baseline_rate,
    cumulative_hazard,
    draw_outcome,
    expected_concordance,
)
from sim.patients import Patient, draw_patient
from sim.records import RECORD_STYLES, write_records
from sim.secret import write_public_secret
from sim.series import Series
from sim.truth import HospitalTruth, PatientTruth, SeriesTruth, write_series, write_truth
from sim.vendors import VENDORS

__all__ = ["Progress", "make_hospitals"]

#: Called with (hospital, patients done, patients in all).
Progress = Callable[[str, int, int], None]
Choice = TypeVar("Choice")

MUSCLE_DENSITY_G_PER_ML = 1.05
CHUNK = 4


@dataclass(frozen=True)
class _Task:
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
class _Made:
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


def _identity(task: _Task, patient: Patient, rng: np.random.Generator) -> Identity:
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
    task: _Task, identity: Identity, exam: Examination, rng: np.random.Generator
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


def _make_patient(task: _Task) -> _Made:
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
    rate = _baseline(config, task.seed, hospital.name)
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
    return _Made(truth, patient.record, outcome, exam.labels, tuple(sorting))


def _truth(task: _Task, patient: Patient, exam: Examination, outcome: Outcome) -> PatientTruth:
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


def _baseline(config: PhantomConfig, seed: int, hospital: str) -> float:
    frailty = generator(seed, "phantom/frailty", site=hospital).normal()
    return baseline_rate(config.outcomes, config.outcomes.frailty_log_sd * float(frailty))


def _tasks(config: PhantomConfig, hospital: HospitalConfig, folder: Path, seed: int) -> list[_Task]:
    rng = generator(seed, "phantom/hospital", site=hospital.name)
    num = hospital.num_patients
    numbers = rng.choice(9_000_000, num, replace=False) + 1_000_000
    directories = rng.permutation(num) + 1
    masked = {int(i): rank for rank, i in enumerate(rng.permutation(num)[: hospital.num_masks])}
    return [
        _Task(
            config, hospital, folder, seed, index, str(int(numbers[index])),
            f"PA{int(directories[index]):04d}", masked.get(index),
        )
        for index in range(num)
    ]  # fmt: skip


def _site_yaml(hospital: HospitalConfig) -> str:
    style = RECORD_STYLES[hospital.records]
    order = SEGMENT_ORDERS[hospital.segments]
    masks: dict[str, Any] | None = None
    if hospital.num_masks:
        labels = {number: CLASS_NAMES[label] for number, label in enumerate(order, start=1)}
        masks = {"format": "dicom_seg", "path": "masks", "labels": labels}
    site = {
        "name": hospital.name,
        "images": {"format": "dicom", "path": "dicom"},
        "outcomes": {
            "path": "outcomes.csv",
            "patient": style.patient,
            "months": style.months,
            "event": style.event,
        },
        "covariates": {
            name: {"column": column.name, "unit": column.unit}
            for name, column in style.columns.items()
        },
        "masks": masks,
        # Several arms of a comparison share the machine, and one thread is the same bytes anywhere.
        "threads": 1,
        # Nobody to protect; a real hospital's default withholds counts below 5.
        "min_cell": 1,
    }
    return yaml.safe_dump(site, sort_keys=False)


def _hospital_truth(
    config: PhantomConfig, name: str, seed: int, patients: tuple[PatientTruth, ...]
) -> HospitalTruth:
    rate = _baseline(config, seed, name)
    tau = config.outcomes.tau_months
    hazard = cumulative_hazard(config.outcomes, rate, tau)
    eta = [patient.eta for patient in patients]
    image = [patient.eta_image for patient in patients]
    covariates = [patient.eta_covariates for patient in patients]
    scores = (None, image, covariates)
    # One patient makes no pair; JSON has no NaN, and 1/2 is what a guess would reach.
    oracle = [expected_concordance(eta, hazard, score) if len(eta) > 1 else 0.5 for score in scores]
    return HospitalTruth(
        hospital=name,
        seed=seed,
        tau_months=tau,
        shape=config.outcomes.shape,
        baseline_rate=rate,
        cumulative_hazard_tau=hazard,
        oracle_c=oracle[0],
        oracle_c_image=oracle[1],
        oracle_c_covariates=oracle[2],
        patients=patients,
    )


def _make_hospital(
    config: PhantomConfig,
    hospital: HospitalConfig,
    making: Path,
    seed: int,
    run: Callable[[Callable[[_Task], _Made], list[_Task]], Iterator[_Made]],
    progress: Progress | None,
) -> None:
    folder = making / hospital.name
    (folder / "dicom").mkdir(parents=True)
    if hospital.num_masks:
        (folder / "masks").mkdir()
    tasks = _tasks(config, hospital, folder, seed)
    made = []
    for patient in run(_make_patient, tasks):
        made.append(patient)
        if progress is not None:
            progress(hospital.name, len(made), len(tasks))
    table = write_records(
        RECORD_STYLES[hospital.records],
        [patient.truth.patient_id for patient in made],
        [patient.record for patient in made],
        [(patient.outcome.months, patient.outcome.event) for patient in made],
        hospital.missing_rate,
        generator(seed, "phantom/missing", site=hospital.name),
    )
    (folder / "outcomes.csv").write_text(table, encoding="utf-8")
    (folder / "site.yaml").write_text(_site_yaml(hospital), encoding="utf-8")
    if hospital.privacy is not None:
        policy = {"privacy": hospital.privacy.model_dump()}
        (folder / POLICY_FILE).write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")
    write_public_secret(folder, seed)
    truth = _hospital_truth(config, hospital.name, seed, tuple(patient.truth for patient in made))
    write_truth(making / "truth" / f"{hospital.name}.json", truth)
    if config.images.all_sequences:
        series = [entry for patient in made for entry in patient.series]
        write_series(making / "truth" / f"{hospital.name}_series.json", series)
    labels = {patient.truth.mask_key: patient.labels for patient in made}
    np.savez_compressed(
        making / "truth" / f"{hospital.name}_masks.npz", allow_pickle=False, **labels
    )


def make_hospitals(
    config: PhantomConfig,
    out_dir: Path,
    seed: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write every hospital of ``config`` to ``out_dir``, and the truth to ``out_dir/truth``.

    Nothing is visible under its final name before all hospitals are complete.

    Parameters
    ----------
    seed : int
        Non-negative; with ``config`` it determines every byte.
    workers : int
        Processes, at least 1.
    progress : callable, optional
        Called after each patient with (hospital, done, total).

    Raises
    ------
    ConfigError
        If a directory to be written exists already, or ``workers`` is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; at least one process must do the work.")
    names = [hospital.name for hospital in config.hospitals]
    present = [name for name in (*names, "truth") if (out_dir / name).exists()]
    if present:
        raise ConfigError(
            f"'{present[0]}' exists in {out_dir} already; choose an empty directory or remove it."
        )
    making = out_dir / f".making-{derive_seed(seed, 'phantom/folder'):016x}"
    shutil.rmtree(making, ignore_errors=True)
    (making / "truth").mkdir(parents=True)
    try:
        if workers == 1:
            for hospital in config.hospitals:
                _make_hospital(config, hospital, making, seed, map, progress)
        else:
            # spawn: a forked copy of a process with running threads may hang.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                for hospital in config.hospitals:
                    _make_hospital(
                        config, hospital, making, seed,
                        lambda function, tasks: pool.map(function, tasks, chunksize=CHUNK),
                        progress,
                    )  # fmt: skip
        for name in (*names, "truth"):
            (making / name).rename(out_dir / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)
