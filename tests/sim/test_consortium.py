"""A whole consortium of real apps: the laws that hold whatever runs them.

Three phantom hospitals are made once; every test runs the quick study on them.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.cohort import labelled
from client.hospital import open_hospital
from client.schedule import round_learning_rate
from client.segment import segmentation_records
from client.training import train
from protocol import audit
from protocol.config import Study
from protocol.errors import QuorumError
from protocol.seeds import generator
from server.initial import segmentation_weights
from server.results import Results, load_results
from shared_models.augment import augment_segmentation
from shared_models.networks import build
from shared_models.objectives import segmentation_objective
from shared_models.weights import from_arrays, load, to_arrays
from sim.arms import make_arms
from sim.engines.deployment import run_deployment
from sim.engines.local import run_local
from sim.engines.ray import run_ray
from sim.simulation import load_simulation

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("segment/final.safetensors", "prognosis/final.safetensors")


@pytest.fixture(scope="session")
def consortium(
    quick_hospitals: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, dict[str, Path]]:
    study, _ = load_simulation(REPOSITORY / "configs" / "quick.yaml")
    folder = tmp_path_factory.mktemp("consortium")
    shutil.copytree(quick_hospitals, folder, dirs_exist_ok=True)
    return study, {name: folder / name for name in study.hospitals.all}


@pytest.fixture(scope="session")
def write_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Study], Path]:
    def write(study: Study) -> Path:
        path = tmp_path_factory.mktemp("study") / "study.yaml"
        path.write_text(yaml.safe_dump({"study": study.model_dump(mode="json", by_alias=True)}))
        return path

    return write


@pytest.fixture(scope="session")
def first_run(
    consortium: tuple[Study, dict[str, Path]],
    write_study: Callable[[Study], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    study, sites = consortium
    run_dir = tmp_path_factory.mktemp("first")
    run_local(write_study(study), run_dir, list(sites.values()))
    return run_dir


@pytest.fixture(scope="session")
def short_run(
    consortium: tuple[Study, dict[str, Path]],
    write_study: Callable[[Study], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """One round of segmentation: the study, and its run in one process."""
    study, sites = consortium
    segment = study.segment.model_copy(update={"rounds": 1})
    file = write_study(
        study.model_copy(update={"stages": ("survey", "segment"), "segment": segment})
    )
    run_dir = tmp_path_factory.mktemp("short")
    run_local(file, run_dir, list(sites.values()))
    return file, run_dir


def bytes_of(run_dir: Path) -> dict[str, bytes]:
    """Return what a run must reproduce: both models, the results, the report."""
    files = (*MODELS, "results.json", "report.html")
    return {name: (run_dir / name).read_bytes() for name in files}


def test_same_seed_same_bytes_whatever_the_order_of_nodes(
    consortium: tuple[Study, dict[str, Path]],
    write_study: Callable[[Study], Path],
    first_run: Path,
    tmp_path: Path,
) -> None:
    study, sites = consortium
    run_local(write_study(study), tmp_path, list(reversed(sites.values())))
    assert bytes_of(tmp_path) == bytes_of(first_run)


def test_killed_in_either_training_and_resumed_it_ends_with_the_same_bytes(
    consortium: tuple[Study, dict[str, Path]],
    write_study: Callable[[Study], Path],
    first_run: Path,
    tmp_path: Path,
) -> None:
    study, sites = consortium
    study_file = write_study(study)
    code = (
        "import sys; from pathlib import Path; from sim.engines.local import run_local;"
        "run_local(Path(sys.argv[1]), Path(sys.argv[2]), [Path(p) for p in sys.argv[3:]])"
    )
    for stage in ("segment", "prognosis"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(study_file), str(tmp_path), *map(str, sites.values())]
        )
        end = time.monotonic() + 120
        while not any((tmp_path / stage).glob("round-*.json")) and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "results.json").exists()
    run_local(study_file, tmp_path, list(sites.values()))
    assert bytes_of(tmp_path) == bytes_of(first_run)


def test_one_hospital_with_all_the_data_is_pooled_training_to_the_last_bit(
    consortium: tuple[Study, dict[str, Path]], tmp_path: Path
) -> None:
    study, sites = consortium
    study = study.model_copy(update={"stages": ("survey", "segment")})
    arm = next(a for a in make_arms(study, sites, tmp_path, ["pooled"]) if a.name == "pooled")
    run_local(arm.study_file, arm.run_dir, arm.sites)
    federated, _ = load(arm.run_dir / MODELS[0])

    hospital = open_hospital(arm.sites[0], arm.study)
    records = segmentation_records(labelled(hospital.training))
    section = study.segment
    model = build(section.network.name, section.network.options)
    from_arrays(model, segmentation_weights(study))
    for number in range(1, section.rounds + 1):
        train(
            model,
            records,
            segmentation_objective,
            section.training,
            learning_rate=round_learning_rate(section.training, number, section.rounds),
            rng=generator(study.seed, "segment/train", round_index=number, site="pooled"),
            execution=hospital.execution,
            augment=augment_segmentation,
        )
    for name, array in to_arrays(model).items():
        assert array.tobytes() == federated[name].tobytes(), name


def test_pooled_training_sees_the_patients_that_the_hospitals_train_on(
    consortium: tuple[Study, dict[str, Path]], tmp_path: Path
) -> None:
    study, sites = consortium
    arm = next(a for a in make_arms(study, sites, tmp_path, ["pooled"]) if a.name == "pooled")
    pooled = open_hospital(arm.sites[0], arm.study)
    apart = [open_hospital(sites[name], study) for name in study.hospitals.train]
    assert [p.key for p in pooled.training] == [p.key for h in apart for p in h.training]
    assert [p.key for p in pooled.held_out] == [p.key for h in apart for p in h.held_out]


def test_an_external_hospital_never_gets_a_training_message(
    consortium: tuple[Study, dict[str, Path]], first_run: Path
) -> None:
    study, sites = consortium
    for name, site in sites.items():
        log = site / ".concors" / "audit.jsonl"
        audit.verify(log)
        events = {json.loads(line)["event"] for line in log.read_text().splitlines()}
        trained = {event for event in events if event.startswith("train.")}
        assert bool(trained) == (name in study.hospitals.train)
    audit.verify(first_run / "audit.jsonl")


def test_the_results_hold_every_hospital_and_no_patient(
    consortium: tuple[Study, dict[str, Path]], first_run: Path
) -> None:
    study, sites = consortium
    results: Results = load_results(first_run / "results.json")
    assert [h.name for h in results.hospitals] == list(study.hospitals.all)
    assert [h.role for h in results.hospitals] == ["train", "train", "external"]
    external = results.arms["federated"].sites["cedar"]
    assert external.overlap is not None
    assert external.pairs is not None
    written = (first_run / "results.json").read_text() + (first_run / "audit.jsonl").read_text()
    # Not among decimals, where any seven digits turn up by chance in ten thousand figures.
    words = set(re.findall(r"(?<![\d.])\d{7}(?!\d)", written))
    for name, site in sites.items():
        hospital = open_hospital(site, study)
        lines = (site / "outcomes.csv").read_text().splitlines()[1:]
        identifiers = {line.replace(";", ",").split(",")[0] for line in lines}
        assert all(re.fullmatch(r"\d{7}", each) for each in identifiers)
        assert not any(patient.key in written for patient in hospital.patients), name
        assert identifiers.isdisjoint(words), name


def test_a_hospital_without_masks_stops_a_full_quorum_with_its_own_sentence(
    consortium: tuple[Study, dict[str, Path]],
    write_study: Callable[[Study], Path],
    tmp_path: Path,
) -> None:
    study, sites = consortium
    bare = tmp_path / "alder"
    bare.mkdir()
    settings = yaml.safe_load((sites["alder"] / "site.yaml").read_text())
    (bare / "site.yaml").write_text(yaml.safe_dump({**settings, "masks": None}))
    shutil.copytree(sites["alder"] / "dicom", bare / "dicom")
    shutil.copy(sites["alder"] / "outcomes.csv", bare)
    with pytest.raises(QuorumError, match="alder has no training patient with an expert mask"):
        run_local(write_study(study), tmp_path / "run", [bare, sites["birch"], sites["cedar"]])


def test_a_model_trained_here_moves_the_weights(
    consortium: tuple[Study, dict[str, Path]], first_run: Path
) -> None:
    study, _ = consortium
    trained, _ = load(first_run / MODELS[0])
    before = segmentation_weights(study)
    assert any(not np.array_equal(before[name], trained[name]) for name in before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray")
@pytest.mark.parametrize("engine", [run_ray, run_deployment], ids=["ray", "deployment"])
def test_the_same_apps_give_the_same_bytes_under_flowers_own_engines(
    consortium: tuple[Study, dict[str, Path]],
    short_run: tuple[Path, Path],
    tmp_path: Path,
    engine: Callable[..., None],
    watch: Callable[[int], Any],
    loopback: set[str],
) -> None:
    (_, sites), (file, local) = consortium, short_run
    watched = watch(os.getpid())
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    other = tmp_path / "other"
    engine(file, other, list(sites.values()))
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
    # What serves and what works, which nobody else can reach.
    assert len(watched.seen) >= 4
    assert watched.addresses and watched.addresses <= loopback
    left = [path for end in ("key", "secret") for path in other.rglob(f"*.{end}")]
    assert left == []
    for name in (MODELS[0], "results.json"):
        assert (local / name).read_bytes() == (other / name).read_bytes(), name
