"""The list of what is not kept: names of the dictionary, never a value."""

from pathlib import Path

from pydicom import dcmread
from typer.testing import CliRunner

from client.cli import app
from client.intake.dropped import dropped_tags


def test_tags_are_counted_by_name_at_any_depth(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom_edge" / "pydicom"
    paths = [folder / "MR_small.dcm", folder / "nested_priv_SQ.dcm", folder / "UN_sequence.dcm"]
    (tmp_path / "broken.dcm").write_bytes(b"x" * 500)
    found = dropped_tags([*paths, tmp_path / "broken.dcm"])
    assert (found.files, found.looked_at) == (4, 3)
    names = {e.keyword for e in dcmread(paths[0]).iterall() if not e.tag.is_private}
    assert "PatientName" in names
    assert names - set(found.by_name) <= {
        "BitsAllocated", "Columns", "DataSetTrailingPadding", "ImageOrientationPatient",
        "ImagePositionPatient", "MagneticFieldStrength", "Manufacturer", "PixelData",
        "PixelRepresentation", "PixelSpacing", "Rows", "SamplesPerPixel",
    }  # fmt: skip
    assert found.with_private >= 1 and found.private_groups >= 1
    for element in dcmread(paths[0]).iterall():
        if element.keyword in ("PatientName", "PatientID", "StudyInstanceUID"):
            assert str(element.value) not in repr(found)


def test_a_large_folder_is_sampled_evenly(shared_data: Path) -> None:
    path = shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm"
    found = dropped_tags([path] * 100, most=10)
    assert (found.files, found.looked_at) == (100, 10)
    assert found.by_name["PatientName"] == 10


def test_secondary_captures_and_features_are_set_aside(shared_data: Path, tmp_path: Path) -> None:
    from client.intake.headers import read_header

    source = shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm"
    path = tmp_path / "a.dcm"
    for change, reason in (
        ({"BurnedInAnnotation": "YES"}, "text burned into the pixels"),
        ({"RecognizableVisualFeatures": "YES"}, "recognizable features in the pixels"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture, which may show text"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "secondary capture, which may show text"),
    ):
        dataset = dcmread(source)
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
        assert read_header(path) == reason


def test_check_shows_the_list(phantom_hospitals: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    outcome = CliRunner().invoke(
        app, ["check", str(phantom_hospitals / "oak"), "--html", str(page)]
    )
    assert "Seen and not kept" in outcome.output and "PatientBirthDate" in outcome.output
    text = page.read_text()
    assert "Seen in the files and not kept" in text and "<th>PatientName</th>" in text
