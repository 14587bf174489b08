"""Masks in both formats land on the frames they were drawn on, or are refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.intake.headers import read_header
from client.intake.nifti import index_nifti, onto_grid, read_nifti
from client.intake.segmentations import index_segmentations, read_segmentations
from client.intake.sorting import sort_study
from client.intake.stacks import StackPlan, plan_stack
from client.masks import Labelled
from client.site import load_site
from protocol.errors import DataError

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CONVENTION = {1: "LV", 2: "MYO", 3: "RV"}


@pytest.fixture(scope="module", params=["elm", "fir", "oak"])
def masked(
    request: pytest.FixtureRequest, phantom_hospitals: Path
) -> tuple[Path, list[Path], StackPlan]:
    """A phantom patient with masks: site folder, SEG files, cine."""
    site = phantom_hospitals / request.param
    files, _ = index_segmentations(site / "masks")
    patient = sorted(files)[0]
    frames = []
    for path in (site / "dicom").rglob("*"):
        header = read_header(path) if path.is_file() else "folder"
        if not isinstance(header, str) and header[0].patient_id == patient:
            frames += header
    return site, files[patient], plan_stack(sort_study(frames).cine)


def _labelled(masked: tuple[Path, list[Path], StackPlan]) -> Labelled:
    site, paths, plan = masked
    masks = load_site(site).masks
    assert masks is not None
    return read_segmentations(paths, plan, masks.labels)


def test_segments_land_on_the_images_they_name(
    masked: tuple[Path, list[Path], StackPlan],
) -> None:
    plan = masked[2]
    labelled = _labelled(masked)
    assert labelled.labels.shape == (2, *plan.shape[1:]) and labelled.phases[0] == 0
    assert set(np.unique(labelled.labels)) == {0, 1, 2, 3}
    # Base to apex: the cavity at the base is larger than at the apex.
    areas = (labelled.labels[0] == 1).sum(axis=(1, 2))
    filled = np.flatnonzero(areas)
    assert areas[filled[0]] > areas[filled[-1]]


def _deflated(path: Path) -> Dataset:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


def test_a_deflated_mask_is_read(
    masked: tuple[Path, list[Path], StackPlan], tmp_path: Path
) -> None:
    site, paths, plan = masked
    masks = load_site(site).masks
    assert masks is not None
    _deflated(paths[0]).save_as(tmp_path / "small.dcm")
    same = read_segmentations([tmp_path / "small.dcm", *paths[1:]], plan, masks.labels)
    assert np.array_equal(same.labels, _labelled(masked).labels)


@pytest.mark.parametrize("masked", ["oak"], indirect=True)
def test_a_mask_that_unfolds_without_end_is_not(
    masked: tuple[Path, list[Path], StackPlan], tmp_path: Path
) -> None:
    site, paths, plan = masked
    masks = load_site(site).masks
    assert masks is not None
    bomb, dataset = tmp_path / "bomb.dcm", _deflated(paths[0])
    dataset.add_new(0x00420011, "OB", bytes(300 << 20))
    dataset.save_as(bomb)
    assert bomb.stat().st_size < 2 << 20
    with pytest.raises(DataError, match="unfold"):
        read_segmentations([bomb], plan, masks.labels)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("flip", [False, True])
def test_nifti_agrees_with_dicom(
    masked: tuple[Path, list[Path], StackPlan],
    tmp_path: Path,
    axes: tuple[int, int, int],
    flip: bool,
) -> None:
    """The same mask, written as NIfTI with its axes exchanged or reversed, reads back the same."""
    plan = masked[2]
    labelled = _labelled(masked)
    affine = RAS @ plan.affine
    paths = []
    for phase, volume in zip(labelled.phases, labelled.labels, strict=True):
        values = np.transpose(volume, (2, 1, 0))
        own = affine.copy()
        if flip:
            values = values[::-1]
            own[:3, 3] += own[:3, 0] * (values.shape[0] - 1)
            own[:3, 0] *= -1
        values, own = np.transpose(values, axes), own[:, [*axes, 3]]
        path = tmp_path / f"p1_frame{phase + 1:02d}_gt.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), own), path)
        paths.append(path)
    found = read_nifti(paths, plan, CONVENTION, systole_phase=1)
    assert found.phases == labelled.phases
    np.testing.assert_array_equal(found.labels, labelled.labels)


def test_nifti_files_are_indexed_by_patient(tmp_path: Path) -> None:
    for name in ("a_ed.nii.gz", "a_es.nii", "b_frame01_gt.nii.gz", "c_d.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    files, others = index_nifti(tmp_path)
    assert {patient: len(paths) for patient, paths in files.items()} == {"a": 2, "b": 1, "c_d": 1}
    assert others == 1


def test_another_grid_is_refused(masked: tuple[Path, list[Path], StackPlan]) -> None:
    plan = masked[2]
    values, affine = np.zeros(plan.shape[:0:-1]), RAS @ plan.affine
    moved = affine.copy()
    moved[:3, 3] += 5.0
    turned = affine @ np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for wrong in (moved, turned, affine @ np.diag([1.1, 1.0, 1.0, 1.0])):
        with pytest.raises(DataError, match="mask on another grid than its images"):
            onto_grid(values, wrong, plan)
    with pytest.raises(DataError, match="mask on another grid than its images"):
        onto_grid(values[:-2], affine, plan)


def test_a_seg_that_lies_elsewhere_is_refused(
    masked: tuple[Path, list[Path], StackPlan], tmp_path: Path
) -> None:
    _, paths, plan = masked
    dataset = dcmread(paths[0])
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        groups.PlanePositionSequence[0].ImagePositionPatient = [position[0] + 7, *position[1:]]
    dataset.save_as(tmp_path / "moved.dcm")
    with pytest.raises(DataError, match="mask on another grid than its images"):
        read_segmentations([tmp_path / "moved.dcm"], plan, CONVENTION)


def test_a_segment_that_is_not_mapped_is_refused(
    masked: tuple[Path, list[Path], StackPlan],
) -> None:
    _, paths, plan = masked
    with pytest.raises(DataError, match="does not map"):
        read_segmentations(paths, plan, {1: "LV", 2: "MYO"})


def test_a_damaged_seg_is_refused(
    masked: tuple[Path, list[Path], StackPlan], tmp_path: Path
) -> None:
    _, paths, plan = masked
    (tmp_path / "cut.dcm").write_bytes(paths[0].read_bytes()[:900])
    with pytest.raises(DataError, match="mask"):
        read_segmentations([tmp_path / "cut.dcm"], plan, CONVENTION)
