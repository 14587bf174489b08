"""Hostile and enormous stores: bounded, refused with a reason, and the rest is read."""

import inspect
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from client.cache import cache_key
from client.imaging import read_dicom_site
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.quiet import quietly
from client.intake.walking import files_below
from protocol.config import Preprocessing
from protocol.errors import DataError

OPTIONS = Preprocessing(spacing_mm=2.0, crop_px=96)


@pytest.fixture
def oak(phantom_hospitals: Path, tmp_path: Path) -> Path:
    """The images of two patients, enhanced multi-frame, where a test may add to them."""
    shutil.copytree(phantom_hospitals / "oak" / "dicom", tmp_path / "dicom")
    return tmp_path / "dicom"


def test_loops_pipes_and_links_are_refused_and_the_rest_is_read(oak: Path, tmp_path: Path) -> None:
    before, _ = read_dicom_site(oak, b"s" * 32, OPTIONS)
    outside = tmp_path / "outside"
    outside.mkdir()
    some = next(path for path in oak.rglob("*") if path.is_file())
    shutil.copy(some, outside / "image.dcm")
    os.symlink(oak, oak / "loop")
    os.symlink(oak / "loop2", oak / "loop2")
    os.symlink(outside, oak / "out")
    os.symlink(outside / "image.dcm", oak / "image.dcm")
    os.symlink("/dev/zero", oak / "zero")
    os.mkfifo(oak / "pipe")
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS)
    assert [patient.key for patient in patients] == [patient.key for patient in before]
    assert refused[("file", "symbolic link")] == 5
    assert refused[("file", "not a regular file")] == 1


def test_folders_may_lie_as_deep_as_a_disk_allows(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(200):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert len(files_below(tmp_path)) == 1
    finally:
        sys.setrecursionlimit(limit)


def test_the_number_of_files_is_bounded(oak: Path) -> None:
    count = len(files_below(oak))
    assert files_below(oak, count) == files_below(oak)
    for bounded in (
        lambda: files_below(oak, count - 1),
        lambda: cache_key([oak], {}, count - 1),
        lambda: read_dicom_site(oak, b"s" * 32, OPTIONS, max_files=count - 1),
    ):
        with pytest.raises(DataError, match=f"more than {count - 1} files.*images.max_files"):
            bounded()


def test_a_file_on_its_way_in_is_not_read(oak: Path) -> None:
    before = files_below(oak)
    (oak / ".17-1.part").write_bytes(b"half")
    assert files_below(oak) == before


def frames_of(folder: Path) -> Counter[tuple[str, str]]:
    found = [read_header(Path(path)) for path in files_below(folder)]
    return Counter(
        (f.patient_id, f.study_uid) for each in found if not isinstance(each, str) for f in each
    )


def test_an_enormous_study_is_set_aside_with_its_reason(oak: Path) -> None:
    (first, second) = frames_of(oak).most_common()
    assert first[1] > second[1]
    reason = f"study of more than {second[1]} images"
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS, max_study_images=second[1])
    assert len(patients) == 1 and refused[("patient", reason)] == 1
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS, max_study_images=first[1])
    assert len(patients) == 2
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS, max_study_images=1)
    assert not patients and refused[("patient", "study of more than 1 images")] == 2


def test_a_patients_other_study_is_still_read(oak: Path) -> None:
    (_, study), count = frames_of(oak).most_common()[0]
    for path in map(Path, files_below(oak)):
        with quietly():
            dataset = dcmread(path)
            if str(dataset.get("StudyInstanceUID")) != study:
                continue
            for copy in range(2):
                dataset.StudyInstanceUID = f"{study[:50]}.1"
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
                    f"1.2.{copy}"
                )
                dataset.save_as(oak / f"{path.parent.name}-{path.name}-{copy}")
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS, max_study_images=count)
    assert len(patients) == 2
    assert refused[("series", f"study of more than {count} images")] == 1


def test_a_stack_is_bounded_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plan:
        shape = (1000, 1000, 1000, 1001)

    with pytest.raises(DataError, match="larger than a billion pixels"):
        decode(Plan())  # type: ignore[arg-type]


def test_a_dicomdir_leads_nowhere(oak: Path, tmp_path: Path) -> None:
    before, _ = read_dicom_site(oak, b"s" * 32, OPTIONS)
    with quietly():
        files = FileSet()
        files.add(Path(files_below(oak)[0]))
        files.write(tmp_path / "medium")
        content = (tmp_path / "medium" / "DICOMDIR").read_bytes()
    record = b"\x04\x00\x00\x15"
    at = content.index(record)
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    path = b"..\\..\\..\\..\\etc\\passwd".ljust(length)[:length]
    hostile = content[: at + 8] + path + content[at + 8 + length :]
    assert len(hostile) == len(content) and b"..\\.." in hostile
    (oak / "DICOMDIR").write_bytes(hostile)
    patients, refused = read_dicom_site(oak, b"s" * 32, OPTIONS)
    assert [patient.key for patient in patients] == [patient.key for patient in before]
    assert refused[("file", "not an MR image")] == 1
