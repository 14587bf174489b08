"""A consortium of empty hospitals."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # flwr imports typer, which asks click for names that click is about to drop.
    warnings.filterwarnings("ignore", r"'click\.", DeprecationWarning)
    import flwr.app  # noqa: F401

APPS = Path(__file__).resolve().parents[1] / "apps"


@dataclass(frozen=True)
class Consortium:
    """The arguments of an engine; the study file of the small apps holds the number of sites."""

    study_file: Path
    run_dir: Path
    sites: list[Path]


@pytest.fixture
def consortium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Consortium]:
    """Make n hospitals, with the small apps importable here and in every child process."""
    monkeypatch.syspath_prepend(str(APPS))
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(APPS), *([before] if before else [])]))

    def make(num_sites: int) -> Consortium:
        sites = [tmp_path / f"hospital {number}" for number in range(num_sites)]
        for site in sites:
            site.mkdir()
        study = tmp_path / "study.yaml"
        study.write_text(str(num_sites))
        return Consortium(study, tmp_path / "run", sites)

    return make
