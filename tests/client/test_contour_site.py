"""Sunnybrook patients as a site's patients: their published volumes, and the one bad set named.

Golden values: Sunnybrook Cardiac Data (Radau et al., MIDAS J 2009; CC0), recomputed in the data's
PROVENANCE file as polygon areas times the true slice distance.
"""

from pathlib import Path

import numpy as np
import pytest
import yaml

from client.check import examine
from client.cohort import Cohort, labelled, load_cohort
from client.intake.challenge_contours import MISPLACED
from client.site import load_site
from protocol.config import Preprocessing
from shared_models.labels import LV, MYO

# Finer than the scanner's 1.37 mm, so that the study's grid loses nothing; at 1.5 mm up to 0.7 %.
OPTIONS = Preprocessing(spacing_mm=1.0, crop_px=192)
# Sorted by EDV: ml, ml, fraction.
GOLDEN = ((191.3, 141.3, 0.262), (216.4, 160.6, 0.258), (229.7, 179.6, 0.218))


@pytest.fixture(scope="module")
def cohort(
    real_studies: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Cohort]:
    site = tmp_path_factory.mktemp("sunnybrook")
    for study in ("SCD0000101", "SCD0000301", "SCD0000501"):
        for path in (real_studies / study).rglob("*.dcm"):
            target = site / "dicom" / study / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    for path in (shared_data / "sunnybrook" / "contourfiles").rglob("*.txt"):
        target = site / "contours" / path.relative_to(shared_data / "sunnybrook" / "contourfiles")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (site / "link.csv").write_bytes((shared_data / "sunnybrook" / "link.csv").read_bytes())
    settings = {
        "name": "toronto",
        "images": {"format": "dicom", "path": "dicom"},
        "masks": {"format": "sunnybrook", "path": "contours", "link": "link.csv"},
    }
    (site / "site.yaml").write_text(yaml.safe_dump(settings))
    return site, load_cohort(site, OPTIONS)


def test_volumes_are_the_published_ones(cohort: tuple[Path, Cohort]) -> None:
    found = []
    for patient in cohort[1].patients:
        assert patient.labels is not None and patient.partial
        voxel_ml = float(np.prod(patient.spacing_mm)) / 1000
        found.append([float((phase == LV).sum()) * voxel_ml for phase in patient.labels])
    assert len(found) == 3
    for (edv, esv), (golden_edv, golden_esv, ejection) in zip(sorted(found), GOLDEN, strict=True):
        assert edv == pytest.approx(golden_edv, abs=1.0)
        assert esv == pytest.approx(golden_esv, abs=1.0)
        assert (edv - esv) / edv == pytest.approx(ejection, abs=0.005)


def test_misplaced_epicardial_contours_are_named_and_left_out(
    cohort: tuple[Path, Cohort],
) -> None:
    notes = {r.reason: r.count for r in cohort[1].refused if r.kind == "mask"}
    assert notes == {MISPLACED: 1}
    with_wall = [bool((p.labels == MYO).any()) for p in cohort[1].patients if p.labels is not None]
    assert sorted(with_wall) == [False, True, True]


def test_masks_without_a_right_ventricle_train_nothing(cohort: tuple[Path, Cohort]) -> None:
    site, found = cohort
    assert labelled(found.patients) == []
    report = examine(found, load_site(site))
    assert report.with_masks == 3 and report.trains == ()
    again = load_cohort(site, OPTIONS)
    assert again.fingerprint == found.fingerprint and all(p.partial for p in again.patients)
