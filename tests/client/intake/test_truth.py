"""Pixels, order, spacing and masks are the phantom's, to the voxel, whatever the packaging."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import intake_truth

from sim.vendors import VENDORS


@pytest.mark.parametrize("form", intake_truth.FORMS)
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_comes_out_is_what_went_in(vendor: str, form: str, tmp_path: Path) -> None:
    exam = intake_truth.examination(vendor, 5, intake_truth.SMALL)
    assert list(intake_truth.differences(exam, form, tmp_path / "study", 5)) == []


def test_a_difference_is_found(tmp_path: Path) -> None:
    """The comparison can fail: one pixel, one voxel of a mask, one trigger time."""
    exam = intake_truth.examination("siemens", 5, intake_truth.SMALL)
    other = intake_truth.examination("siemens", 5, intake_truth.SMALL)
    cine = next(series for series in other.series if series.kind == "cine")
    intake_truth.write(exam, "classic", tmp_path / "kept", 5)
    cine.stored[2, 3, 4, 5] += 1
    cine.trigger_ms[2] += 3.0
    voxel = tuple(np.argwhere(other.labels == 1)[0])
    other.labels[voxel] = 2

    def keep(exam: object, form: str, folder: Path, seed: int) -> list[Path]:
        (tmp_path / "kept").rename(folder)
        return sorted(folder.glob("mask*.dcm"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake_truth, "write", keep)
        found = list(intake_truth.differences(other, "classic", tmp_path / "study", 5))
    assert {"cine: other pixels", "phases in another order", "other masks"} <= set(found)
