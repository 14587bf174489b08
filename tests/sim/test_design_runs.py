"""Leave-one-hospital-out and the hospital x hospital matrix through the real apps."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from protocol.config import Study
from protocol.errors import ConfigError
from server.results import Results, load_results
from sim.cli import app


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("design_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 90, "h1": 60, "h2": 75}
BOTH = ["leave-one-hospital-out", "hospital-matrix"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    cohorts = {name: kit.cohort(seed, size) for seed, (name, size) in enumerate(SIZES.items())}
    return [kit.write_hospital(folder, name, part, min_cell=5) for name, part in cohorts.items()]


def study(**changes: object) -> Study:
    values = {
        "stages": ["survey", "regression", "validate"],
        "validate": {"bootstrap": 20, "designs": BOTH},
        "regression": {"patients": "training"},
        **changes,
    }
    return kit.regression_study(SIZES, **values)


@pytest.fixture(scope="module")
def finished(sites: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("run")
    return kit.run(study(), kit.RecordingGrid(sites), folder), folder


def test_a_hospital_left_out_is_judged_by_a_model_it_never_trained(
    finished: tuple[Results, Path], sites: list[Path], tmp_path: Path
) -> None:
    results, _ = finished
    runs = {run.name: run for run in results.designs.leave_one_out}
    assert list(runs) == list(SIZES)
    for name, run in runs.items():
        assert name not in run.train and set(run.train) | {name} == set(SIZES)
        # All its patients, as at any external hospital; of the others those held out.
        assert run.regression[name].patients == SIZES[name]
        assert all(run.regression[h].patients < SIZES[h] / 2 for h in run.train)
    # The same study written by hand.
    plain = kit.regression_study(
        ["h0", "h2"],
        ["h1"],
        stages=["survey", "regression", "validate"],
        validate={"bootstrap": 20, "subgroups": False},
        regression={"patients": "training"},
    )
    by_hand = kit.run(plain, kit.RecordingGrid(sites), tmp_path)
    pairs = by_hand.arms["federated"].sites["h1"].regression_pairs
    assert pairs is not None and runs["h1"].regression["h1"].c_index == pairs.c_index


def test_the_matrix_has_every_model_at_every_hospital(finished: tuple[Results, Path]) -> None:
    results, _ = finished
    runs = {run.name: run for run in results.designs.matrix}
    assert list(runs) == list(SIZES)
    for name, run in runs.items():
        assert run.train == (name,) and list(run.regression) == [
            name,
            *(other for other in SIZES if other != name),
        ]
        for other, figure in run.regression.items():
            assert (figure.patients == SIZES[other]) == (other != name)
            assert figure.c_index is not None and 0.5 < figure.c_index < 1
            assert figure.lower is not None and figure.lower <= figure.c_index


def test_the_designs_leave_the_study_itself_as_it_was(
    finished: tuple[Results, Path], sites: list[Path], tmp_path: Path
) -> None:
    results, _ = finished
    alone = kit.run(study(validate={"bootstrap": 20}), kit.RecordingGrid(sites), tmp_path)
    assert alone.regression == results.regression and alone.arms == results.arms
    assert not alone.designs.matrix and not (tmp_path / "designs").exists()


def test_a_finished_study_is_not_asked_again_and_the_bytes_are_the_same(
    sites: list[Path], tmp_path: Path
) -> None:
    kit.run(study(), kit.RecordingGrid(sites), tmp_path)
    before = (tmp_path / "results.json").read_bytes(), (tmp_path / "report.html").read_bytes()
    # As if killed in the middle of the matrix.
    (tmp_path / "designs" / "hospital-matrix" / "h2" / "results.json").unlink()
    (tmp_path / "results.json").unlink()
    grid = kit.RecordingGrid(sites)
    kit.run(study(), grid, tmp_path)
    after = (tmp_path / "results.json").read_bytes(), (tmp_path / "report.html").read_bytes()
    assert after == before
    surveys = [site for site, topic, _ in grid.sent if topic == "query.survey"]
    assert surveys == ["h0", "h1", "h2"] * 2


def test_a_result_of_another_configuration_is_not_taken(
    finished: tuple[Results, Path], sites: list[Path], tmp_path: Path
) -> None:
    results, folder = finished
    place = tmp_path / "designs" / "hospital-matrix" / "h0"
    place.mkdir(parents=True)
    text = (folder / "designs" / "hospital-matrix" / "h1" / "results.json").read_text()
    (place / "results.json").write_text(text)
    again = kit.run(study(), kit.RecordingGrid(sites), tmp_path)
    assert again.designs == results.designs


def test_a_hospital_too_small_for_a_model_of_its_own_is_told_with_the_reason(
    sites: list[Path], tmp_path: Path
) -> None:
    few = kit.cohort(9, 40)
    few["event"] = np.where(np.arange(40) < 5, 1, 0)
    small = kit.write_hospital(tmp_path, "small", few, min_cell=5)
    names = ["h0", "h1", "small"]
    grid = kit.RecordingGrid([*sites[:2], small])
    asked = kit.regression_study(
        names,
        stages=["survey", "regression", "validate"],
        validate={"bootstrap": 5, "designs": BOTH, "subgroups": False},
        regression={"patients": "training"},
        rounds={"join_s": 5, "quorum": 0.6},
    )
    results = kit.run(asked, grid, tmp_path / "run")
    matrix = {run.name: run for run in results.designs.matrix}
    assert "small: E200 small: This hospital has fewer events" in matrix["small"].reason
    assert not matrix["small"].regression and matrix["h0"].regression
    left_out = {run.name: run for run in results.designs.leave_one_out}
    assert left_out["small"].regression["small"].events == 5
    assert load_results(tmp_path / "run" / "results.json") == results
    page = (tmp_path / "run" / "report.html").read_text()
    assert "fewer events than its minimum" in page


def test_no_patient_stands_in_what_the_designs_write(finished: tuple[Results, Path]) -> None:
    _, folder = finished
    for path in sorted(folder.rglob("*.json*")):
        text = path.read_text()
        assert '"P1' not in text and "outcomes.csv" not in text
    lines = (folder / "progress.jsonl").read_text().splitlines()
    steps = [json.loads(line)["what"] for line in lines]
    assert steps.count("design hospital-matrix") == 3


def test_a_design_that_does_not_exist_is_refused_at_the_command() -> None:
    study_file = Path(__file__).resolve().parents[2] / "configs" / "quick.yaml"
    done = CliRunner().invoke(app, ["validate", str(study_file), "--design", "jackknife"])
    assert isinstance(done.exception, ConfigError)
    assert "validate.designs.0: input should be 'leave-one" in done.exception.sentence
