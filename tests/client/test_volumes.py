"""NIfTI files and numpy archives give the cohort that the same images give as DICOM."""

import gzip
import json
import shutil
import struct
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from client.archives import acdc_patients, read_acdc
from client.cohort import Cohort, load_cohort
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.nifti_file import open_nifti
from client.intake.numpy_file import open_npz
from client.intake.sorting import sort_study
from client.intake.stacks import plan_stack
from client.placement import Stack
from protocol.config import Preprocessing
from protocol.errors import DataError
from shared_models.labels import LV, MYO, RV

OPTIONS = Preprocessing(spacing_mm=2.0, crop_px=96)
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def stacks(phantom_hospitals: Path) -> dict[str, tuple[Stack, Stack]]:
    """Cine and LGE of the Philips hospital's patients, by patient number."""
    by_patient: dict[str, list] = {}
    for path in (phantom_hospitals / "fir" / "dicom").rglob("*"):
        header = read_header(path) if path.is_file() else "folder"
        if not isinstance(header, str):
            by_patient.setdefault(header[0].patient_id, []).extend(header)
    out = {}
    for patient, frames in by_patient.items():
        found = sort_study(frames)
        plans = plan_stack(found.cine), plan_stack(found.lge)
        cine, lge = (Stack(decode(p), p.affine, p.spacing_mm) for p in plans)
        out[patient] = (cine, lge)
    return out


def write_nifti(path: Path, stack: Stack, turn: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values, affine = np.transpose(stack.pixels, (3, 2, 1, 0)), RAS @ stack.affine
    if turn:
        # Slices from apex to base, columns from the other side.
        for axis in (0, 2):
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
            values = np.flip(values, axis)
    if values.shape[3] == 1:
        values = values[..., 0]
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), affine), path)


def cohort_of(site: Path, form: str, **more: object) -> Cohort:
    settings = {"name": "yew", "images": {"format": form, "path": "images"}} | more
    (site / "site.yaml").write_text(yaml.safe_dump(settings))
    return load_cohort(site, OPTIONS)


@pytest.mark.parametrize("layout", ["bids", "flat", "turned"])
def test_nifti_gives_what_dicom_gives(
    phantom_hospitals: Path, stacks: dict[str, tuple[Stack, Stack]], tmp_path: Path, layout: str
) -> None:
    images = tmp_path / "images"
    for patient, (cine, lge) in stacks.items():
        if layout == "bids":
            write_nifti(images / f"sub-{patient}/ses-1/cine/sub-{patient}_bold.nii.gz", cine)
            write_nifti(images / f"sub-{patient}/ses-1/anat/sub-{patient}_LGE.nii.gz", lge)
            text = json.dumps({"Manufacturer": "Philips", "MagneticFieldStrength": 1.5})
            (images / f"sub-{patient}/ses-1/cine/sub-{patient}_bold.json").write_text(text)
        else:
            write_nifti(images / f"{patient}_cine.nii.gz", cine, layout == "turned")
            write_nifti(images / f"{patient}_lge.nii.gz", lge, layout == "turned")
    shutil.copy(phantom_hospitals / "fir" / "site.secret", tmp_path / "site.secret")
    found = cohort_of(tmp_path, "nifti")
    expected = load_cohort(phantom_hospitals / "fir", OPTIONS)
    assert [p.key for p in found.patients] == [p.key for p in expected.patients]
    for ours, theirs in zip(found.patients, expected.patients, strict=True):
        assert theirs.lge is not None and ours.lge is not None
        if theirs.labels is None:
            np.testing.assert_allclose(ours.cine, theirs.cine, atol=2e-3)
        assert ours.spacing_mm == pytest.approx(theirs.spacing_mm, abs=1e-3)
        np.testing.assert_array_equal(ours.lge_present, theirs.lge_present)
        assert np.abs(ours.lge - theirs.lge).mean() < 0.01
        assert ours.vendor == ("philips" if layout == "bids" else "other")


def test_odd_names_and_damaged_files_cost_no_other_patient(
    stacks: dict[str, tuple[Stack, Stack]], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    patients = sorted(stacks)
    for patient in patients:
        write_nifti(images / f"{patient}_cine.nii.gz", stacks[patient][0])
    whole = (images / f"{patients[0]}_cine.nii.gz").read_bytes()
    (images / f"{patients[0]}_cine.nii.gz").write_bytes(whole[: len(whole) // 2])
    shutil.copy(images / f"{patients[1]}_cine.nii.gz", images / "copy_cine.nii.gz")
    write_nifti(images / f"{patients[2]}_t1.nii.gz", stacks[patients[2]][1])
    (images / f"{patients[2]}_cine_gt.nii.gz").write_bytes(b"")
    (images / "nameless.nii.gz").write_bytes(b"")
    found = cohort_of(tmp_path, "nifti")
    assert len(found.patients) == len(patients) - 2
    assert {(r.kind, r.reason): r.count for r in found.refused} == {
        ("file", "file that is not named NUMBER_what.nii.gz"): 1,
        ("file", "mask among the images"): 1,
        ("patient", "no short-axis cine"): 1,
        ("patient", "the same images as another patient number; keep one of them"): 2,
        ("series", "NIfTI file is damaged"): 1,
        ("series", "single volume that is not named late enhancement"): 1,
    }


def header(dims: tuple[int, ...], bits: int = 16, offset: float = 352.0) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(dims), *dims, *([1] * (7 - len(dims))))
    struct.pack_into("<hh", head, 70, 4, bits)
    struct.pack_into("<8f", head, 76, *([1.0] * 8))
    struct.pack_into("<f", head, 108, offset)
    head[344:348] = b"n+1\0"
    return bytes(head)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (header((32_000, 32_000, 32_000)), "states an implausible size"),
        (header((4, 4, 4), offset=1e12), "states an implausible size"),
        (header((4, 4, 4), bits=-16), "is damaged"),
        (header((512, 512, 40, 60)) + bytes(100), "unfolds to an implausible size"),
        (header((4, 4, 4)) + bytes(20), "is damaged"),
        (header((4, 0, 4)), "is damaged"),
        (b"hello" * 200, "not a NIfTI file"),
        (b"", "is damaged"),
    ],
)
@pytest.mark.parametrize("folded", [False, True])
def test_a_nifti_bomb_is_refused_before_it_unfolds(
    tmp_path: Path, content: bytes, sentence: str, folded: bool
) -> None:
    path = tmp_path / ("a.nii.gz" if folded else "a.nii")
    path.write_bytes(gzip.compress(content) if folded else content)
    with pytest.raises(DataError, match="NIfTI file" if not folded else sentence):
        open_nifti(path)


def test_numpy_archives_are_a_site(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "acdc"
    rows = acdc_patients(archive, None)[:4]
    (tmp_path / "images").mkdir()
    for row, study in zip(rows, read_acdc(archive, rows), strict=True):
        with np.load(archive / "volumes" / f"{row['patient']}.npz") as file:
            arrays = dict(file)
        for phase in ("ed", "es"):
            own = np.zeros_like(arrays[f"{phase}_label"])
            for value, label in ((1, RV), (2, MYO), (3, LV)):
                own[arrays[f"{phase}_label"] == value] = label
            arrays[f"{phase}_label"] = own
        arrays["spacing_mm"] = np.array(study.stack.spacing_mm)
        np.savez(tmp_path / "images" / f"{row['patient']}.npz", allow_pickle=False, **arrays)
    found = cohort_of(tmp_path, "numpy")
    assert len(found.patients) == 4 and all(p.labels is not None for p in found.patients)
    volumes = sorted(
        (p.labels[0] == LV).sum() * float(np.prod(p.spacing_mm)) / 1000
        for p in found.patients
        if p.labels is not None
    )
    expected = sorted(float(row["lv_edv_ml"]) for row in rows)
    np.testing.assert_allclose(volumes, expected, rtol=0.01)


def test_nifti_masks_lie_on_nifti_images(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "acdc"
    rows = acdc_patients(archive, None)[:3]
    for row, study in zip(rows, read_acdc(archive, rows), strict=True):
        write_nifti(tmp_path / "images" / f"{row['patient']}_4d.nii.gz", study.stack)
        labels = Stack(study.labels.astype(np.uint8), study.stack.affine, study.stack.spacing_mm)
        write_nifti(tmp_path / "masks" / f"{row['patient']}.nii.gz", labels)
    convention = {LV: "LV", MYO: "MYO", RV: "RV"}
    masks = {"format": "nifti", "path": "masks", "labels": convention}
    found = cohort_of(tmp_path, "nifti", masks=masks)
    volumes = sorted(
        (p.labels[0] == LV).sum() * float(np.prod(p.spacing_mm)) / 1000
        for p in found.patients
        if p.labels is not None
    )
    expected = sorted(float(row["lv_edv_ml"]) for row in rows)
    np.testing.assert_allclose(volumes, expected, rtol=0.01)
    exchanged = {"format": "nifti", "path": "masks", "labels": {1: "RV", 2: "MYO", 3: "LV"}}
    with pytest.raises(DataError, match="none of the masks of yew can be used: mask whose labels"):
        cohort_of(tmp_path, "nifti", masks=exchanged)


def test_numpy_archives_are_bounded_and_hold_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, cine=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not of numbers"):
        open_npz(path, ("cine",))
    np.savez_compressed(path, cine=np.zeros(1 << 28, np.uint8))
    with pytest.raises(DataError, match="implausible size"):
        open_npz(path, ("cine",))
    good = tmp_path / "good.npz"
    np.savez(good, cine=np.arange(6.0).reshape(2, 3))
    with zipfile.ZipFile(good) as archive:
        member = archive.read("cine.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cine.npy", member.replace(b"(2, 3)", b"(2, 9)"))
    with pytest.raises(DataError, match="numpy archive is damaged"):
        open_npz(path, ("cine",))
    path.write_bytes(good.read_bytes()[:100])
    with pytest.raises(DataError, match="numpy archive is damaged"):
        open_npz(path, ("cine",))
    np.testing.assert_array_equal(open_npz(good, ("cine", "lge"))["cine"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "", "x" * 300])
def test_a_name_in_a_table_leads_nowhere(shared_data: Path, tmp_path: Path, name: str) -> None:
    row = acdc_patients(shared_data / "acdc", None)[0] | {"patient": name}
    with pytest.raises(DataError, match="missing or damaged") as caught:
        list(read_acdc(tmp_path, [row]))
    assert "secret" not in caught.value.sentence
