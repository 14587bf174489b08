"""The quick walk over a header gives what the general parser gives, or nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from client.intake import headers
from client.intake.elements import walk
from client.intake.headers import WANTED, read_header

Parse = Callable[[Path], object]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Read a header by the general parser alone."""

    def read(path: Path) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(headers, "walk", lambda stream, wanted: None)
            return read_header(path)

    return read


def _walks(path: Path) -> bool:
    with path.open("rb") as stream:
        return walk(stream, WANTED) is not None


def test_the_odd_files_of_the_world_read_alike(shared_data: Path, parsed: Parse) -> None:
    paths = [p for p in sorted((shared_data / "dicom_edge").rglob("*")) if p.is_file()]
    quick = 0
    for path in paths:
        assert repr(read_header(path)) == repr(parsed(path)), path.name
        quick += path.stat().st_size > 132 and _walks(path)
    assert quick >= 30


def test_phantom_files_are_walked(phantom_hospitals: Path, parsed: Parse) -> None:
    for site in ("elm", "fir"):
        paths = sorted((phantom_hospitals / site / "dicom").rglob("IM*"))[::17]
        assert any(_walks(path) for path in paths)
        for path in paths:
            assert repr(read_header(path)) == repr(parsed(path))


def _nested(depth: int) -> Dataset:
    item = Dataset()
    item.CodeMeaning = "x" * 60
    if depth:
        item.PurposeOfReferenceCodeSequence = [_nested(depth - 1)]
        item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = depth % 2 == 0
    return item


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("large", "quick"), [(0, True), (20_000, True), (200_000, True), (400_000, False)]
)
def test_what_stands_before_the_wanted_elements_is_stepped_over(
    shared_data: Path,
    tmp_path: Path,
    parsed: Parse,
    implicit: bool,
    large: int,
    quick: bool,
) -> None:
    dataset = dcmread(shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm")
    dataset.ReferencedImageSequence = [_nested(4), _nested(3)]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.private_block(0x0019, "SOMEBODY", create=True).add_new(0x10, "OB", bytes(large))
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = tmp_path / "large.dcm"
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    assert _walks(path) == quick
    found = read_header(path)
    assert isinstance(found, tuple) and repr(found) == repr(parsed(path))
    assert found[0].pixels.offset > large


def test_compressed_pixels_have_no_place(shared_data: Path) -> None:
    folder = shared_data / "dicom_edge"
    compressed = 0
    for path in (folder / "pydicom" / "MR_small_RLE.dcm", *(folder / "dcm_qa_ts").glob("*.dcm")):
        found = read_header(path)
        is_compressed = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        assert isinstance(found, tuple)
        if is_compressed.is_encapsulated:
            compressed += _walks(path)
            assert found[0].pixels.offset == -1
    assert compressed >= 4


def test_elements_out_of_order_are_left_to_the_parser(shared_data: Path, tmp_path: Path) -> None:
    whole = bytearray((shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm").read_bytes())
    at = whole.find(b"\x20\x00\x0d\x00UI")
    whole[at : at + 2] = b"\x08\x00"
    path = tmp_path / "odd.dcm"
    path.write_bytes(whole)
    assert not _walks(path)
