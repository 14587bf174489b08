"""RTSTRUCT and SEG on other grids: what was drawn comes back, or is refused."""

from pathlib import Path

import numpy as np
import pytest
from contourpy import contour_generator
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from client.intake.headers import read_header
from client.intake.segmentations import index_segmentations, read_segmentations
from client.intake.sorting import sort_study
from client.intake.stacks import StackPlan, plan_stack
from client.intake.structures import RTSTRUCT, read_structures
from client.masks import Labelled
from client.site import load_site
from protocol.errors import DataError
from shared_models.labels import LV, MYO, RV

ROIS = {"LV endo": "LV", "LV epi": "EPI", "RV endo": "RV"}
DRAWN = {"LV ENDO": (LV,), "lv epi": (LV, MYO), "RV endo": (RV,), "aorta": (LV,)}


@pytest.fixture(scope="module", params=["elm", "oak"])
def expert(
    request: pytest.FixtureRequest, phantom_hospitals: Path
) -> tuple[list[Path], StackPlan, Labelled, dict[int, str]]:
    """A phantom patient: SEG files, cine, labels as read from them, their convention."""
    site = phantom_hospitals / request.param
    files, _ = index_segmentations(site / "masks")
    patient = sorted(files)[0]
    frames = []
    for path in (site / "dicom").rglob("*"):
        header = read_header(path) if path.is_file() else "folder"
        if not isinstance(header, str) and header[0].patient_id == patient:
            frames += header
    plan = plan_stack(sort_study(frames).cine)
    masks = load_site(site).masks
    assert masks is not None
    convention: dict[int, str] = dict(masks.labels)
    return files[patient], plan, read_segmentations(files[patient], plan, convention), convention


def contour_item(points_px: np.ndarray, plan: StackPlan, t: int, z: int) -> Dataset:
    frame = plan.frames[t][z]
    dy, dx = frame.pixel_spacing_mm
    points = (
        np.array(frame.position_mm)
        + points_px[:, :1] * dx * frame.along_row
        + points_px[:, 1:] * dy * frame.along_column
    )
    image, item = Dataset(), Dataset()
    image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    image.ReferencedSOPInstanceUID = frame.sop_uid
    if frame.pixels.num_frames > 1:
        image.ReferencedFrameNumber = frame.frame_index + 1
    item.ContourImageSequence = [image]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{x:.4f}" for x in points.ravel()]
    return item


def write_structures(path: Path, plan: StackPlan, labelled: Labelled) -> Dataset:
    """Write outlines of the labels as a structure set of four regions, one of them unasked for."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTSTRUCT
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientID = "P1"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, classes) in enumerate(DRAWN.items(), start=1):
        roi, contours = Dataset(), Dataset()
        roi.ROINumber = contours.ReferencedROINumber = number
        roi.ROIName = name
        contours.ContourSequence = []
        for t, stack in zip(labelled.phases, labelled.labels, strict=True):
            for z, plane in enumerate(stack):
                region = np.pad(np.isin(plane, classes), 1).astype(float)
                for line in contour_generator(z=region).lines(0.5):
                    contours.ContourSequence.append(
                        contour_item(np.asarray(line)[:-1] - 1, plan, t, z)
                    )
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contours)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_a_structure_set_comes_back(
    expert: tuple[list[Path], StackPlan, Labelled, dict[int, str]], tmp_path: Path
) -> None:
    _, plan, labelled, _ = expert
    write_structures(tmp_path / "rt.dcm", plan, labelled)
    files, others = index_segmentations(tmp_path, (RTSTRUCT,))
    assert list(files) == ["P1"] and others == 0
    found = read_structures(files["P1"], plan, ROIS)
    assert found.phases == labelled.phases and not found.partial
    for cls in (LV, MYO, RV):
        for phase in range(2):
            one, other = found.labels[phase] == cls, labelled.labels[phase] == cls
            assert dice(one, other) > 0.97
            assert one.sum() == pytest.approx(other.sum(), rel=0.02)
    without = {name: label for name, label in ROIS.items() if label != "RV"}
    assert read_structures(files["P1"], plan, without).partial


def test_structures_that_do_not_fit_are_refused(
    expert: tuple[list[Path], StackPlan, Labelled, dict[int, str]], tmp_path: Path
) -> None:
    _, plan, labelled, _ = expert
    path = tmp_path / "rt.dcm"
    dataset = write_structures(path, plan, labelled)
    contours = dataset.ROIContourSequence[0].ContourSequence
    normal = plan.frames[0][0].normal
    data = np.array(contours[0].ContourData, float).reshape(-1, 3)
    for shift, sentence in (
        (3.0 * normal, "another grid"),
        (400 * plan.frames[0][0].along_row, "only in part"),
    ):
        contours[0].ContourData = [f"{x:.4f}" for x in (data + shift).ravel()]
        dataset.save_as(path)
        with pytest.raises(DataError, match=sentence):
            read_structures([path], plan, ROIS)
    for contour in contours:
        contour.ContourImageSequence[0].ReferencedSOPInstanceUID = generate_uid()
    dataset.ROIContourSequence = dataset.ROIContourSequence[:1]
    dataset.save_as(path)
    with pytest.raises(DataError, match="refers to no image"):
        read_structures([path], plan, ROIS)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="mask"):
        read_structures([path], plan, ROIS)


def test_a_foreign_structure_set_is_parsed(
    shared_data: Path, expert: tuple[list[Path], StackPlan, Labelled, dict[int, str]]
) -> None:
    path = shared_data / "dicom_edge" / "pydicom" / "rtstruct.dcm"
    names = [str(roi.ROIName) for roi in dcmread(path, force=True).StructureSetROISequence]
    with pytest.raises(DataError, match="refers to no image of the short-axis cine"):
        read_structures([path], expert[1], dict.fromkeys(names, "LV"))


def regrid(dataset: Dataset, planes: np.ndarray, factor: float, first: tuple[int, int]) -> Dataset:
    """Give a SEG other planes, whose first pixel lies at ``first`` (row, column) of the old."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    axes = np.array(orientation.ImageOrientationPatient, float)
    dy, dx = (float(x) for x in measures.PixelSpacing)
    # Pixel centres: the first small pixel of two lies a quarter of the large one before its centre.
    offset = [at + (1 / factor - 1) / 2 for at in first]
    measures.PixelSpacing = [dy / factor, dx / factor]
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = groups.PlanePositionSequence[0]
        moved = (
            np.array(position.ImagePositionPatient, float)
            + offset[1] * dx * axes[:3]
            + offset[0] * dy * axes[3:]
        )
        position.ImagePositionPatient = [f"{x:.5f}" for x in moved]
    dataset.Rows, dataset.Columns = planes.shape[1:]
    dataset.PixelData = pack_bits(planes.astype(np.uint8))
    return dataset


@pytest.mark.parametrize("how", ["finer", "cropped"])
def test_a_seg_on_another_grid_is_brought_onto_the_image(
    expert: tuple[list[Path], StackPlan, Labelled, dict[int, str]], tmp_path: Path, how: str
) -> None:
    files, plan, labelled, convention = expert
    paths = []
    for index, path in enumerate(files):
        dataset = dcmread(path)
        planes = dataset.pixel_array
        if how == "finer":
            dataset = regrid(dataset, planes.repeat(2, 1).repeat(2, 2), 2, (0, 0))
        else:
            dataset = regrid(dataset, planes[:, 6:-4, 4:-8], 1, (6, 4))
        paths.append(tmp_path / f"{index}.dcm")
        dataset.save_as(paths[-1])
    found = read_segmentations(paths, plan, convention)
    assert found.phases == labelled.phases
    np.testing.assert_array_equal(found.labels, labelled.labels)


def test_a_seg_that_cuts_the_heart_is_refused(
    expert: tuple[list[Path], StackPlan, Labelled, dict[int, str]], tmp_path: Path
) -> None:
    files, plan, _, convention = expert
    dataset = dcmread(files[0])
    planes = dataset.pixel_array
    middle = int(np.argwhere(planes.any(axis=0))[:, 0].mean())
    regrid(dataset, planes[:, middle:, :], 1, (middle, 0)).save_as(tmp_path / "cut.dcm")
    with pytest.raises(DataError, match="overlaps its images only in part"):
        read_segmentations([tmp_path / "cut.dcm"], plan, convention)
