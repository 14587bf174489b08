"""Fixtures every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from client.cohort import Patient
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals

# The same examples in every run, and no clock: a busy machine must not fail a law.
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first, so that no worker is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


WHOLE = ("siemens", "philips", "ge", "canon")


@pytest.fixture(scope="session")
def whole_examinations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small hospital a vendor, with every sequence and view, and the truth of each series."""
    out = tmp_path_factory.mktemp("whole")
    images = {
        "cine_frames": 8,
        "matrix_px": 64,
        "fov_mm": [215.0, 240.0],
        "sublevels": 1,
        "all_sequences": True,
    }
    sites = [{"name": name, "num_patients": 2, "vendors": {name: 1}} for name in WHOLE]
    config = PhantomConfig.model_validate({"hospitals": sites, "images": images})
    make_hospitals(config, out, seed=7)
    return out


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that lies beside the project; tests that need it skip without it."""
    folder = Path(os.environ.get("CONCORS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CONCORS_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def make_patient() -> Callable[..., Patient]:
    """A factory of small patients without content, for what only looks at their description."""

    def make(
        index: int, *, masks: bool = False, event: int = 0, shape: tuple[int, int, int] = (1, 4, 4)
    ) -> Patient:
        cine = np.zeros((2, *shape), np.float32)
        return Patient(
            key=f"{index:016x}",
            cine=cine,
            labels=np.zeros(cine.shape, np.uint8) if masks else None,
            lge=None,
            lge_present=np.zeros(shape[0], bool),
            spacing_mm=(10.0, 1.5, 1.5),
            vendor="siemens",
            field_strength_t=1.5,
            months=12.0,
            event=event,
            covariates={},
        )

    return make
