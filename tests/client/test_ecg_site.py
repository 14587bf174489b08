"""A hospital of outcomes and electrocardiograms: each record reaches its patient."""

import shutil
from pathlib import Path

import pytest
import yaml

from client.cohort import load_cohort
from protocol.config import Preprocessing
from protocol.errors import ConfigError


def make_site(folder: Path, shared_data: Path, form: str) -> Path:
    (folder / "outcomes.csv").write_text("id,fu,ev\ns0010_re,12,1\n100,5,0\nX9,7,0\n")
    (folder / "ecg").mkdir()
    names = {"wfdb": ("s0010_re.hea", "s0010_re.dat", "s0010_re.xyz", "100.hea", "100.dat")}
    for name in names.get(form, ("12lead_ecg.dcm",)):
        shutil.copy(shared_data / "ecg" / name, folder / "ecg" / name)
    settings = {
        "name": "ash",
        "outcomes": {"path": "outcomes.csv", "patient": "id", "months": "fu", "event": "ev"},
        "ecg": {"format": form, "path": "ecg"},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_records_reach_their_patients(shared_data: Path, tmp_path: Path) -> None:
    site = make_site(tmp_path, shared_data, "wfdb")
    cohort = load_cohort(site, Preprocessing())
    shapes = {p.months: p.ecg.millivolts.shape if p.ecg else None for p in cohort.patients}
    assert shapes == {12.0: (15, 38_400), 5.0: (2, 650_000), 7.0: None}
    assert cohort.refused == ()
    # The record is part of what identifies the data.
    (site / "ecg" / "100.hea").unlink()
    assert load_cohort(site, Preprocessing()).fingerprint != cohort.fingerprint


def test_a_record_of_nobody_is_counted(shared_data: Path, tmp_path: Path) -> None:
    cohort = load_cohort(make_site(tmp_path, shared_data, "dicom"), Preprocessing())
    assert [(r.kind, r.reason, r.count) for r in cohort.refused] == [
        ("ecg", "record of a patient who is not used", 1)
    ]
    assert all(p.ecg is None for p in cohort.patients)


def test_the_folder_lies_inside_the_site(shared_data: Path, tmp_path: Path) -> None:
    site = make_site(tmp_path, shared_data, "wfdb")
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(text.replace("path: ecg", "path: .."))
    with pytest.raises(ConfigError, match=r"ecg\.path leads out of the site's directory"):
        load_cohort(site, Preprocessing())
