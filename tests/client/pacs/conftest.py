"""An Orthanc of the tests' own, with phantom studies and a real one, and sites that ask it."""

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from client.intake.quiet import quietly
from sim.orthanc import Orthanc, free_port, orthanc_problem

REAL_IMAGES = 24


@dataclass(frozen=True)
class Filled:
    """A running archive, the port it calls back on, and what it holds by image UID."""

    orthanc: Orthanc
    own_port: int
    contents: dict[str, Path]
    real_study: str
    study_of: dict[str, str]

    @property
    def studies(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.study_of.values())))

    def images(self, study: str) -> set[str]:
        return {image for image, of in self.study_of.items() if of == study}


@pytest.fixture(scope="session")
def needs_orthanc() -> None:
    """Skip where there is no Orthanc."""
    problem = orthanc_problem()
    if problem is not None:
        pytest.skip(problem)


@pytest.fixture(scope="session")
def real_images(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some images of one real study (Sunnybrook, GE)."""
    out = tmp_path_factory.mktemp("real")
    with tarfile.open(shared_data / "sunnybrook" / "SCD0000301.tar.xz") as file:
        # In the archive's order, and no further: going back unpacks it from its beginning.
        members = (member for member in file if member.name.endswith(".dcm"))
        chosen = list(islice(members, REAL_IMAGES))
        file.extractall(out, chosen, filter="data")
    return [out / member.name for member in chosen]


@pytest.fixture(scope="session")
def filled(
    needs_orthanc: None,
    phantom_hospitals: Path,
    real_images: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Filled]:
    """Two phantom studies of enhanced multi-frame images and a real one of classic images."""
    own_port = free_port()
    folder = tmp_path_factory.mktemp("orthanc")
    phantoms = sorted(p for p in (phantom_hospitals / "oak" / "dicom").rglob("*") if p.is_file())
    with Orthanc(folder, {"CONCORS": own_port}) as orthanc:
        yield fill(orthanc, own_port, [*phantoms, *real_images], real_images[0])


def fill(orthanc: Orthanc, own_port: int, paths: list[Path], real: Path) -> Filled:
    """Upload files and note what they are."""
    with quietly():
        headers = {path: dcmread(path, stop_before_pixels=True) for path in paths}
        uids = {
            path: (str(h.SOPInstanceUID), str(h.StudyInstanceUID)) for path, h in headers.items()
        }
    assert orthanc.upload(path.read_bytes() for path in paths) == len(paths)
    contents = {image: path for path, (image, _) in uids.items()}
    return Filled(orthanc, own_port, contents, uids[real][1], dict(uids.values()))


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Path]:
    """A factory of sites that fetch from an archive on the loopback address."""

    def make(protocol: str, port: int, own_port: int = 0, **pacs: Any) -> Path:
        site = tmp_path / f"site-{protocol}-{len(list(tmp_path.iterdir()))}"
        site.mkdir()
        section: dict[str, Any] = {"protocol": protocol, "host": "127.0.0.1", "port": port}
        if protocol == "dicomweb":
            (site / "login").touch(0o600)
            (site / "login").write_text(":".join(Orthanc.login))
            section["credentials"] = {"file": "login"}
        else:
            section["ae_title"] = Orthanc.ae_title
        if protocol == "c-move":
            section |= {"own_host": "127.0.0.1", "own_port": own_port}
        document = {
            "name": "site",
            "images": {"format": "dicom", "path": "store"},
            "pacs": section | pacs,
        }
        (site / "site.yaml").write_text(yaml.safe_dump(document))
        return site

    return make


@pytest.fixture(scope="session")
def journal_of() -> Callable[[Path], list[dict[str, Any]]]:
    """Return the lines of a site's journal."""

    def read(site: Path) -> list[dict[str, Any]]:
        text = (site / ".concors" / "fetch.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    return read


@pytest.fixture
def site_of(filled: Filled, make_site: Callable[..., Path]) -> Callable[..., Path]:
    """A factory of sites that fetch from the filled archive."""

    def make(protocol: str, **pacs: Any) -> Path:
        orthanc = filled.orthanc
        port = orthanc.http_port if protocol == "dicomweb" else orthanc.dicom_port
        return make_site(protocol, port, filled.own_port, **pacs)

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Dataset]:
    """A factory of tiny MR images whose patient must not be heard of again."""

    def make(study: str, series: str, image: str) -> Dataset:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = image
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, image
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.PatientName, dataset.PatientID = "CANARY^JANE", "CANARY-77"
        dataset.Modality = "MR"
        dataset.Rows = dataset.Columns = 8
        dataset.BitsAllocated = 16
        dataset.PixelData = bytes(range(128))
        return dataset

    return make
