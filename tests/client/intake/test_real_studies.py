"""Golden numbers of real studies, through our own stack assembly.

Sunnybrook Cardiac Data (Radau et al., MIDAS J 2009; GE 1.5 T; CC0) and one Siemens Vida study (3
T); values and known defects as recomputed in the data's PROVENANCE files.
"""

from pathlib import Path

import numpy as np
import pytest

from client.contours import fraction_inside, polygon_area_px, read_contour
from client.intake.decoder import Decoder
from client.intake.frame import Frame
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.segmentations import read_segmentations
from client.intake.sorting import Sorted, sort_study
from client.intake.stacks import BASE_TO_APEX, StackPlan, plan_stack
from client.placement import Stack, place
from client.preprocess import prepare
from client.segment_export import planes_back, segmentations
from protocol.config import Preprocessing
from shared_models.labels import LV, MYO, RV

# Original number, ED ml, ES ml, EF, true slice distance mm.
GOLDEN = {
    "SCD0000101": ("SC-HF-I-1", 191.3, 141.3, 0.262, 10.0),
    "SCD0000301": ("SC-HF-I-4", 229.7, 179.6, 0.218, 8.0),
    "SCD0000501": ("SC-HF-I-6", 216.4, 160.6, 0.258, 8.0),
}


def _sorted(*folders: Path) -> Sorted:
    frames: list[Frame] = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                header = read_header(path)
                assert not isinstance(header, str), header
                frames += header
    return sort_study(frames)


def _volumes_ml(plan: StackPlan, contours: Path) -> dict[int, float]:
    """Endocardial volume by phase: sum of polygon areas times the voxel's measure (Simpson)."""
    place = {
        int(Path(frame.pixels.path).stem): t
        for t, phase in enumerate(plan.frames)
        for frame in phase
    }
    volumes: dict[int, float] = {}
    for path in sorted(contours.iterdir()):
        t = place[int(path.name.split("-")[2])]
        area = polygon_area_px(read_contour(path))
        volumes[t] = volumes.get(t, 0.0) + area * float(np.prod(plan.spacing_mm)) / 1000
    return volumes


@pytest.mark.parametrize("study", GOLDEN)
def test_sunnybrook_volumes(study: str, real_studies: Path, shared_data: Path) -> None:
    original, edv_ml, esv_ml, ejection, dz_mm = GOLDEN[study]
    plan = plan_stack(_sorted(real_studies / study).cine)
    assert plan.spacing_mm[0] == pytest.approx(dz_mm, abs=0.001)
    assert plan.affine[:3, 2] @ BASE_TO_APEX > 0
    folder = shared_data / "sunnybrook" / "contourfiles" / original
    volumes = _volumes_ml(plan, folder / "i-contours")
    assert len(volumes) == 2, "all slices of a phase have one rank, although their times differ"
    edv, esv = max(volumes.values()), min(volumes.values())
    assert (edv, esv) == (pytest.approx(edv_ml, abs=0.05), pytest.approx(esv_ml, abs=0.05))
    assert (edv - esv) / edv == pytest.approx(ejection, abs=0.0005)


def test_trigger_times_differ_by_slice_in_101(real_studies: Path) -> None:
    plan = plan_stack(_sorted(real_studies / "SCD0000101").cine)
    assert plan.shape[:2] == (2, 9)
    assert len({f.trigger_ms for f in plan.frames[0]}) > 1


def test_diastole_of_101_is_its_later_frame(real_studies: Path) -> None:
    """Exported are end-systole at .375 and end-diastole at .925 of the beat, in that order."""
    plan = plan_stack(_sorted(real_studies / "SCD0000101").cine)
    assert plan.phases == pytest.approx((0.375, 0.925), abs=0.001) and plan.diastole == 1
    # Heart rates of 76 to 80: the same phases, so that no slice is interpolated.
    assert plan.notes == () and not any(blend.mixes for blend in plan.blends)


@pytest.mark.parametrize("study", ["SCD0000101", "vida"])
def test_masks_go_back_onto_real_studies(study: str, real_studies: Path, tmp_path: Path) -> None:
    """Each breath-hold has its own last digits of orientation; 101 a reference a file."""
    plan = plan_stack(_sorted(real_studies / study).cine)
    cine = Stack(decode(plan), plan.affine, plan.spacing_mm)
    at = place(cine, Preprocessing(), diastole=plan.diastole)
    labels = np.zeros((2, plan.shape[1], at.size, at.size), np.uint8)
    y, x = np.mgrid[: at.size, : at.size] - (at.size - 1) / 2
    for phase, radius in zip(labels, (17, 12), strict=True):
        phase[:, np.hypot(y, x) < radius + 6] = MYO
        phase[:, np.hypot(y, x) < radius] = LV
        phase[:, (np.hypot(y, x + 30) < 14) & (np.hypot(y, x) >= radius + 6)] = RV
    planes = planes_back(labels, plan, {}, at)
    paths = []
    for name, group in zip(("ed", "es"), planes, strict=True):
        for dataset in segmentations(group, (LV, MYO, RV), name, None):
            paths.append(tmp_path / f"{name}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
    back = read_segmentations(paths, plan, {1: "LV", 2: "MYO", 3: "RV"})
    assert back.phases == at.phases and not back.drawn_on
    again = prepare(cine, Preprocessing(), labels=back.labels, phases=at.phases).labels
    assert again is not None
    for label in (LV, MYO, RV):
        both = ((again == label) & (labels == label)).sum()
        assert 2 * both / ((again == label).sum() + (labels == label).sum()) > 0.95


def test_misplaced_epicardial_contours_of_501_are_caught(shared_data: Path) -> None:
    for study, (original, *_) in GOLDEN.items():
        folder = shared_data / "sunnybrook" / "contourfiles" / original
        shares = []
        for outer in sorted((folder / "o-contours").iterdir()):
            inner = folder / "i-contours" / outer.name.replace("ocontour", "icontour")
            if inner.exists():
                shares.append(fraction_inside(read_contour(inner), read_contour(outer)))
        if study == "SCD0000501":
            assert min(shares) < 0.4 and np.mean(shares) == pytest.approx(0.63, abs=0.01)
        else:
            assert min(shares) >= 0.997


def test_localizers_that_share_the_cines_series_number_are_set_apart(real_studies: Path) -> None:
    found = _sorted(real_studies / "SCD0000301", real_studies / "SCD0000301_localizers")
    assert len(found.cine) == 200 and found.refused == {"localizer": 1}


def test_vida_short_axis_is_joined_from_six_series(real_studies: Path) -> None:
    found = _sorted(real_studies / "vida")
    assert len({f.series_uid for f in found.cine}) == 6 and len(found.cine) == 150
    assert found.refused == {"long-axis view": 5}
    plan = plan_stack(found.cine)
    assert plan.shape == (25, 6, 208, 256)
    assert plan.spacing_mm[0] == pytest.approx(17.7, abs=0.001)
    assert found.cine[0].thickness_mm == 6.0


def test_sunnybrook_ventricle_is_inside_the_crop(real_studies: Path, shared_data: Path) -> None:
    original, *_ = GOLDEN["SCD0000501"]
    plan = plan_stack(_sorted(real_studies / "SCD0000501").cine)
    labels = np.zeros((2, *plan.shape[1:]), dtype=np.uint8)
    place = {
        int(Path(f.pixels.path).stem): (t, z)
        for t, phase in enumerate(plan.frames)
        for z, f in enumerate(phase)
    }
    phases: list[int] = []
    for path in sorted(
        (shared_data / "sunnybrook/contourfiles" / original / "i-contours").iterdir()
    ):
        t, z = place[int(path.name.split("-")[2])]
        if t not in phases:
            phases.append(t)
        x, y = read_contour(path).round().astype(int).T
        labels[phases.index(t), z, y, x] = 1
    cine = Stack(decode(plan), plan.affine, plan.spacing_mm)
    out = prepare(cine, Preprocessing(), labels=labels, phases=(phases[0], phases[1]))
    assert out.labels is not None
    where = np.argwhere(out.labels > 0)[:, 2:]
    assert where.min() >= 16 and where.max() < 112


def test_nine_transfer_syntaxes_hold_one_image(shared_data: Path) -> None:
    folder = shared_data / "dicom_edge" / "dcm_qa_ts"
    images = []
    with Decoder() as decoder:
        for index in range(1, 10):
            header = read_header(folder / f"{index}.dcm")
            assert isinstance(header, tuple)
            plan = StackPlan((header,), np.eye(4), (1.0, 1.0, 1.0), np.zeros((1, 2)))
            images.append(decode(plan, decoder))
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])
