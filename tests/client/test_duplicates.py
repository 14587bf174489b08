"""One person under two numbers and two under one: named, left out, and the others go on."""

import shutil
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from pydicom.uid import generate_uid

from client.cohort import Cohort, load_cohort
from client.duplicates import SAME_IMAGES, SAME_STUDY, TWO_PERSONS
from protocol.config import Preprocessing

OPTIONS = Preprocessing(spacing_mm=2.0, crop_px=96)


@pytest.fixture
def oak(phantom_hospitals: Path, tmp_path: Path) -> Path:
    """The hospital of enhanced files (few of them), without masks and outcomes."""
    site = tmp_path / "oak"
    shutil.copytree(phantom_hospitals / "oak" / "dicom", site / "dicom")
    settings = {"name": "oak", "images": {"format": "dicom", "path": "dicom"}}
    (site / "site.yaml").write_text(yaml.safe_dump(settings))
    return site


def by_patient(site: Path) -> list[list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((site / "dicom").rglob("*")):
        if path.is_file():
            found.setdefault(str(dcmread(path, specific_tags=["PatientID"]).PatientID), []).append(
                path
            )
    return [found[key] for key in sorted(found)]


def copied(paths: list[Path], folder: Path, **changes: str) -> None:
    folder.mkdir()
    for index, path in enumerate(paths):
        dataset = dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"{index}.dcm")


def refused(cohort: Cohort) -> dict[str, int]:
    return {r.reason: r.count for r in cohort.refused if r.kind == "patient"}


def test_one_study_under_two_numbers(oak: Path) -> None:
    copied(by_patient(oak)[0], oak / "dicom" / "again", PatientID="OTHER77")
    cohort = load_cohort(oak, OPTIONS)
    assert len(cohort.patients) == 1 and refused(cohort) == {SAME_STUDY: 2}
    assert "OTHER77" not in repr(cohort.refused)


def test_the_same_images_as_another_study(oak: Path) -> None:
    uid = generate_uid()
    copied(by_patient(oak)[0], oak / "dicom" / "again", PatientID="OTHER77", StudyInstanceUID=uid)
    cohort = load_cohort(oak, OPTIONS)
    assert len(cohort.patients) == 1 and refused(cohort) == {SAME_IMAGES: 2}


def test_two_persons_under_one_number(oak: Path) -> None:
    one, other = by_patient(oak)
    number = str(dcmread(one[0]).PatientID)
    copied(other, oak / "dicom" / "again", PatientID=number, PatientBirthDate="19330317")
    for path in other:
        path.unlink()
    with pytest.raises(Exception, match=TWO_PERSONS):
        load_cohort(oak, OPTIONS)
