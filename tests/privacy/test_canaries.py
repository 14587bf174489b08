"""Marked patients: what identifies them is planted everywhere and must turn up nowhere.

The mark stands in every text element of every DICOM file (private ones, sequences and UIDs
included), in file and folder names, and in the outcome table; then the whole pipeline runs, fails,
and is looked through: what was sent, what was written, what was printed.
"""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from flwr.app import Message
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from client.app import app as client_app
from client.cli import app as command
from protocol.config import Study
from protocol.errors import ConcorsError
from server.study import run_study
from sim.config import PhantomConfig
from sim.engines.contract import SITE_KEY
from sim.grid import LocalGrid
from sim.hospitals import make_hospitals
from sim.simulation import load_simulation

QUICK = Path(__file__).resolve().parents[2] / "configs" / "quick.yaml"
MARK, MARKED_DATE, MARKED_ROOT = "ZQXMARK", "19330317", "1.2.826.0.1.7310953"
MARKS = [MARK.encode(), MARK.lower().encode(), MARKED_DATE.encode(), b"1933-03-17", b"0.1.7310953"]
TEXTS = {"LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE"}
NAMES = (
    "PatientName",
    "OtherPatientIDs",
    "PatientAddress",
    "PatientComments",
    "ReferringPhysicianName",
    "OperatorsName",
    "InstitutionName",
    "AccessionNumber",
    "ImageComments",
    "StudyDescription",
)


class ListeningGrid(LocalGrid):
    """Keeps every document and every error that a hospital sends."""

    def __init__(self, sites: Iterable[Path]) -> None:
        super().__init__(client_app, [{SITE_KEY: str(site)} for site in sites])
        self.heard: list[str] = []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            self.heard.append(
                repr(reply.error) if reply.has_error() else str(reply.content["document"])
            )
        return replies


def mark_text(value: str, vr: str) -> str:
    short = 8 if vr in ("SH", "AE") else 40
    return f"{value[:short]} {MARK}"


def mark_uid(uid: str) -> str:
    if uid.startswith("1.2.840.10008"):
        return uid
    digest = hashlib.sha256(uid.encode()).hexdigest()
    return f"{MARKED_ROOT}.{int(digest[:12], 16)}"


def mark_dataset(dataset: Dataset) -> None:
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                mark_dataset(item)
        elif element.VR == "UI" and element.value:
            many = isinstance(element.value, list)
            element.value = (
                [mark_uid(str(uid)) for uid in element.value]
                if many
                else mark_uid(str(element.value))
            )
        elif element.VR in TEXTS and element.keyword != "PatientID":
            element.value = mark_text(str(element.value), element.VR)


def mark_file(path: Path) -> None:
    dataset = dcmread(path)
    mark_dataset(dataset)
    for keyword in NAMES:
        setattr(dataset, keyword, f"{MARK}^{keyword[:8]}")
    dataset.PatientBirthDate = dataset.StudyDate = dataset.SeriesDate = MARKED_DATE
    dataset.PatientID = f"{MARK}-{dataset.PatientID}"
    block = dataset.private_block(0x0029, f"{MARK} PRIVATE", create=True)
    block.add_new(0x01, "LT", f"{MARK} born {MARKED_DATE}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path.with_name(f"{MARK}_{path.name}"))
    path.unlink()


def mark_table(path: Path, patient: str) -> None:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        dialect = csv.Sniffer().sniff(stream.readline())
        stream.seek(0)
        rows = list(csv.DictReader(stream, dialect=dialect))
    for row in rows:
        row[patient] = f"{MARK}-{row[patient]}"
        row[f"{MARK} remarks"] = f"{MARK} lives at {MARK} since {MARKED_DATE}"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)


def mark_site(site: Path) -> None:
    settings = yaml.safe_load((site / "site.yaml").read_text())
    mark_table(site / settings["outcomes"]["path"], settings["outcomes"]["patient"])
    for folder in (settings["images"]["path"], settings["masks"]["path"]):
        for path in sorted((site / folder).rglob("*")):
            if path.is_file():
                mark_file(path)
        for path in sorted((site / folder).rglob("*"), reverse=True):
            if path.is_dir():
                path.rename(path.with_name(f"{MARK}_{path.name}"))


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[Path]]:
    study, simulation = load_simulation(QUICK)
    assert simulation.phantom is not None
    hospitals = [
        {"name": "alder", "num_patients": 7, "num_masks": 3, "vendors": {"siemens": 1}},
        # A survival grid needs 20 training patients past half a year; Canon writes few files.
        {"name": "birch", "num_patients": 30, "num_masks": 4, "vendors": {"canon": 1}},
    ]
    images = {"cine_frames": 4, "matrix_px": 72, "slice_step_mm": 12, "sublevels": 1}
    config = PhantomConfig.model_validate(
        {"hospitals": hospitals, "images": images, "outcomes": {"annual_event_rate": 0.2}}
    )
    out = tmp_path_factory.mktemp("marked")
    make_hospitals(config, out, seed=3)
    sites = [out / "alder", out / "birch"]
    for site in sites:
        mark_site(site)
    roles = study.hospitals.model_copy(update={"external": ()})
    return study.model_copy(update={"hospitals": roles}), sites


def found_in(folder: Path) -> list[str]:
    """Return the files below a folder, or their names, that hold a mark."""
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(m in path.read_bytes() + path.name.encode() for m in MARKS)
    ]


def test_the_marks_are_there(marked: tuple[Study, list[Path]]) -> None:
    for site in marked[1]:
        files = [path for path in (site / "dicom").rglob("*") if path.is_file()]
        assert len(found_in(site / "dicom")) == len(files) > 100


def test_no_mark_is_sent_or_written(marked: tuple[Study, list[Path]], tmp_path: Path) -> None:
    study, sites = marked
    grid = ListeningGrid(sites)
    results = run_study(grid, study, tmp_path / "run")
    assert sum(hospital.patients or 0 for hospital in results.hospitals) == 37
    heard = "\n".join(grid.heard).encode()
    assert len(grid.heard) > 15 and not any(mark in heard for mark in MARKS)
    assert found_in(tmp_path / "run") == []
    for site in sites:
        assert list((site / ".concors").rglob("*.safetensors"))
        assert found_in(site / ".concors") == []


def test_no_mark_is_printed(marked: tuple[Study, list[Path]], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    outcome = CliRunner().invoke(command, ["check", str(marked[1][0]), "--html", str(page)])
    assert outcome.exit_code == 0
    assert not any(mark in outcome.output.encode() for mark in MARKS)
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("cell", ["months", "event", "patient"])
def test_no_mark_is_in_an_error(
    marked: tuple[Study, list[Path]], tmp_path: Path, cell: str
) -> None:
    study, sites = marked
    broken = tmp_path / "alder"
    broken.mkdir()
    for path in sites[0].iterdir():
        if path.name not in (".concors", "outcomes.csv"):
            (broken / path.name).symlink_to(path)
    settings = yaml.safe_load((sites[0] / "site.yaml").read_text())
    (broken / "site.yaml").unlink()
    text = (sites[0] / settings["outcomes"]["path"]).read_text()
    lines = text.splitlines()
    column = next(csv.reader([lines[0]])).index(settings["outcomes"][cell])
    cells = lines[2].split(",")
    cells[column] = f"{MARK}-77" if cell != "patient" else lines[1].split(",")[column]
    lines[2] = ",".join(cells)
    (broken / settings["outcomes"]["path"]).write_text("\n".join(lines) + "\n")
    settings.pop("images"), settings.pop("masks")
    (broken / "site.yaml").write_text(yaml.safe_dump(settings))
    grid = ListeningGrid([broken, sites[1]])
    with pytest.raises(ConcorsError) as error:
        run_study(grid, study, tmp_path / "run")
    heard = "\n".join([*grid.heard, error.value.sentence]).encode()
    assert "alder" in error.value.sentence and not any(mark in heard for mark in MARKS)
    assert found_in(tmp_path / "run") == []
    logs = list((broken / ".concors").rglob("*.log"))
    assert logs and not any(mark in log.read_bytes() for log in logs for mark in MARKS)


def test_a_foreign_exception_leaves_its_text_nowhere(
    marked: tuple[Study, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not read /data/{MARK}/{MARKED_DATE}.dcm")

    study, sites = marked
    monkeypatch.setattr("client.hospital._cohort", stumble)
    grid = ListeningGrid(sites)
    with pytest.raises(ConcorsError):
        run_study(grid, study.model_copy(update={"seed": 77}), tmp_path / "run")
    assert not any(mark in "\n".join(grid.heard).encode() for mark in MARKS)
    for site in sites:
        log = (site / ".concors" / "client.log").read_text()
        assert "RuntimeError: (its text is not kept)" in log and "stumble" in log
        assert found_in(site / ".concors") == []
