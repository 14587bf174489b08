"""A recorded run of real hospitals of tables, in one process."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from protocol.config import Study


def load(name: str) -> ModuleType:
    place = Path(__file__).resolve().parents[2] / "sim" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: three hospitals train for three rounds, a fourth judges."""
    kit, folder = load("tabular_hospitals"), tmp_path_factory.mktemp("recorded")
    names = ("alder", "birch", "cedar", "elm")
    sites = [kit.write_hospital(folder, n, kit.cohort(i, 60)) for i, n in enumerate(names)]
    study = Study.model_validate(
        {
            "name": "recorded",
            "seed": 5,
            "hospitals": {"train": names[:3], "external": names[3:]},
            "stages": ["survey", "prognosis", "validate"],
            "prognosis": {
                "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
                "covariates": ["age", "gene_12"],
                "num_intervals": 6,
                "rounds": 3,
                "training": {"learning_rate": 0.05, "epochs": 2},
            },
            "validate": {"bootstrap": 20},
            "rounds": {"join_s": 5},
        }
    )
    kit.run(study, kit.RecordingGrid(sites, models=True), folder / "run")
    return folder / "run"
