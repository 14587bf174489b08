"""Headers: the odd files of the world never stop the walk, and only known fields get through."""

import csv
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.intake.frame import Frame, vendor_of
from client.intake.headers import read_header


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("Philips Medical Systems", "philips"),
        ("GE MEDICAL SYSTEMS", "ge"),
        ("TOSHIBA_MEC", "canon"),
        ("CANON_MEC", "canon"),
        ("United Imaging", "other"),
        ("", "other"),
    ],
)
def test_the_vendor_rests_on_the_manufacturer(manufacturer: str, vendor: str) -> None:
    assert vendor_of(manufacturer) == vendor


def test_odd_files_give_frames_or_a_reason(shared_data: Path) -> None:
    folder = shared_data / "dicom_edge"
    with (folder / "manifest.csv").open() as stream:
        names = [row["file"] for row in csv.DictReader(stream)]
    found = {name: read_header(folder / name) for name in names}
    assert len(found) >= 60
    reasons = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    assert reasons["pydicom/image_dfl.dcm"] == "secondary capture, which may show text"
    assert reasons["pydicom/rtstruct.dcm"].startswith("no DICOM preamble")
    assert reasons["pydicom/CT_small.dcm"] == "not an MR image"
    assert all(isinstance(found[f"dcm_qa_ts/{i}.dcm"], tuple) for i in range(1, 10))
    siemens = found["dcm_qa_enh/Siemens/XA10/6_1.dcm"]
    assert isinstance(siemens, tuple) and len(siemens) == 6
    assert siemens[0].temporal_index == 1.0 and len({f.position_mm for f in siemens}) == 6
    # A reason goes to the screen and into the survey: it may not name the file.
    assert not any(Path(name).stem in reason for name, reason in reasons.items())


def test_no_name_enters(shared_data: Path) -> None:
    path = shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm"
    frames = read_header(path)
    assert isinstance(frames, tuple)
    dataset = dcmread(path, stop_before_pixels=True)
    assert str(dataset.PatientName) and str(dataset.PatientName) not in repr(frames[0])


@pytest.mark.parametrize("size", [0, 1, 131, 132, 200, 700])
def test_truncated_files_are_refused(shared_data: Path, tmp_path: Path, size: int) -> None:
    whole = (shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[:size])
    assert isinstance(read_header(path), str)


def test_mutants_neither_stop_nor_hang(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm").read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / "mutant.dcm"
    for _ in range(300):
        mutant = bytearray(whole)
        for at in rng.integers(132, 1500, rng.integers(1, 6)):
            mutant[at] = rng.integers(256)
        path.write_bytes(mutant)
        outcome = read_header(path)
        assert isinstance(outcome, (str, tuple))


def test_a_link_is_not_followed(shared_data: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.dcm"
    link.symlink_to(shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm")
    assert read_header(link) == "symbolic link"


def test_pixels_are_where_the_header_says(shared_data: Path) -> None:
    folder = shared_data / "dicom_edge" / "pydicom"
    for name in ("MR_small.dcm", "MR_small_implicit.dcm"):
        header = read_header(folder / name)
        assert isinstance(header, tuple)
        frame: Frame = header[0]
        data = (folder / name).read_bytes()[frame.pixels.offset :][: frame.rows * frame.cols * 2]
        stored = np.frombuffer(data, "<i2").reshape(frame.rows, frame.cols)
        np.testing.assert_array_equal(stored, dcmread(folder / name).pixel_array)


def test_a_missing_preamble_is_read_where_the_site_says_so(
    shared_data: Path, tmp_path: Path
) -> None:
    whole = (shared_data / "dicom_edge" / "pydicom" / "MR_small_implicit.dcm").read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    path = tmp_path / "bare.dcm"
    path.write_bytes(whole[144 + length :])
    assert read_header(path) == "no DICOM preamble; set images.without_preamble to read such files"
    frames = read_header(path, bare=True)
    assert isinstance(frames, tuple)
    data = path.read_bytes()[frames[0].pixels.offset :][: 64 * 64 * 2]
    stored = np.frombuffer(data, "<i2").reshape(64, 64)
    source = dcmread(shared_data / "dicom_edge" / "pydicom" / "MR_small_implicit.dcm")
    np.testing.assert_array_equal(stored, source.pixel_array)
