"""Write phantom hospitals: each directory as a real one would hand it over, the truth apart."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from client.policy import POLICY_FILE
from protocol.errors import ConfigError
from protocol.seeds import derive_seed, generator
from shared_models.labels import CLASS_NAMES
from sim.config import HospitalConfig, PhantomConfig
from sim.masks import SEGMENT_ORDERS
from sim.outcomes import cumulative_hazard, expected_concordance
from sim.patient_files import MadePatient, PatientTask, hospital_rate, make_patient
from sim.records import RECORD_STYLES, write_records
from sim.secret import write_public_secret
from sim.truth import HospitalTruth, PatientTruth, write_series, write_truth

__all__ = ["Progress", "make_hospitals"]

#: Called with (hospital, patients done, patients in all).
Progress = Callable[[str, int, int], None]
CHUNK = 4


def _tasks(
    config: PhantomConfig, hospital: HospitalConfig, folder: Path, seed: int
) -> list[PatientTask]:
    rng = generator(seed, "phantom/hospital", site=hospital.name)
    num = hospital.num_patients
    numbers = rng.choice(9_000_000, num, replace=False) + 1_000_000
    directories = rng.permutation(num) + 1
    masked = {int(i): rank for rank, i in enumerate(rng.permutation(num)[: hospital.num_masks])}
    return [
        PatientTask(
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
    rate = hospital_rate(config, seed, name)
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
    run: Callable[[Callable[[PatientTask], MadePatient], list[PatientTask]], Iterator[MadePatient]],
    progress: Progress | None,
) -> None:
    folder = making / hospital.name
    (folder / "dicom").mkdir(parents=True)
    if hospital.num_masks:
        (folder / "masks").mkdir()
    tasks = _tasks(config, hospital, folder, seed)
    made = []
    for patient in run(make_patient, tasks):
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
