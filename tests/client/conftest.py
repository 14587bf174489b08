"""Hospitals for the client's tests: phantom ones, and real studies unpacked."""

import tarfile
from pathlib import Path

import pytest

from sim.config import PhantomConfig
from sim.hospitals import make_hospitals

SITES = [
    {"name": "elm", "num_patients": 3, "num_masks": 2, "vendors": {"siemens": 1}},
    {
        "name": "fir",
        "num_patients": 3,
        "num_masks": 1,
        "vendors": {"philips": 1},
        "records": "german",
        "segments": "lv_first",
    },
    {"name": "oak", "num_patients": 2, "num_masks": 1, "vendors": {"canon": 1}},
]


@pytest.fixture(scope="session")
def phantom_hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small hospitals: one series a slice; shuffled instances; enhanced multi-frame."""
    out = tmp_path_factory.mktemp("phantom")
    config = PhantomConfig.model_validate(
        {"hospitals": SITES, "images": {"cine_frames": 5, "matrix_px": 96, "sublevels": 1}}
    )
    make_hospitals(config, out, seed=11)
    for site in SITES:
        # Phantoms withhold nothing; these stand for real hospitals.
        path = out / str(site["name"]) / "site.yaml"
        path.write_text(path.read_text().replace("min_cell: 1", "min_cell: 5"))
    return out


@pytest.fixture(scope="session")
def real_studies(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with SCD0000101, SCD0000301 (and its localizers), SCD0000501 and vida, unpacked."""
    out = tmp_path_factory.mktemp("studies")
    archives = {
        "SCD0000101": "sunnybrook/SCD0000101_contoured_frames.tar.xz",
        "SCD0000301": "sunnybrook/SCD0000301.tar.xz",
        "SCD0000301_localizers": "sunnybrook/SCD0000301_localizers.tar.xz",
        "SCD0000501": "sunnybrook/SCD0000501.tar.xz",
        "vida": "siemens_vida_study/dicoms.tar.xz",
    }
    for name, archive in archives.items():
        with tarfile.open(shared_data / archive) as file:
            file.extractall(out / name, filter="data")
    return out
