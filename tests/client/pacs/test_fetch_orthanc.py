"""Fetching from a real archive: everything comes once, whole, and goes on after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner

from client.cli import app
from client.intake.quiet import quietly
from client.pacs.fetch import fetch
from client.pacs.wanted import Entry, days_query
from protocol.audit import verify

RUN = CliRunner()
PROTOCOLS = ("c-get", "c-move", "dicomweb")
COMMAND = "import typer; from client.pacs_cli import fetch_command; typer.run(fetch_command)"


def header(path: Path) -> Dataset:
    with quietly():
        dataset = dcmread(path)
        # Values are read when they are asked for, and real UIDs have leading zeros.
        dataset.decode()
        list(dataset.iterall())
    return dataset


def _uid(path: Path) -> UID:
    with quietly():
        return dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID


def stored(site: Path) -> dict[str, Path]:
    """Return the images of a store by their UID."""
    paths = [path for path in (site / "store").rglob("*") if path.is_file()]
    return {str(_uid(path)): path for path in paths}


def assert_equal_images(found: dict[str, Path], expected: dict[str, Path]) -> None:
    assert found.keys() == expected.keys()
    for uid, path in found.items():
        one, other = header(path), header(expected[uid])
        assert one.PixelData == other.PixelData
        assert one == other


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_studies_come_whole_and_only_once(
    protocol: str, filled: Any, site_of: Callable[..., Path], journal_of: Callable[..., Any]
) -> None:
    site = site_of(protocol)
    listed = site / "list.txt"
    listed.write_text("# three studies\n" + "\n".join(filled.studies) + "\n")
    first = RUN.invoke(app, ["fetch", str(site), "--list", str(listed)])
    assert first.exit_code == 0, first.output
    assert "everything wanted is in the store" in first.output
    found = stored(site)
    assert_equal_images(found, filled.contents)
    times = {path: path.stat().st_mtime_ns for path in found.values()}
    second = RUN.invoke(app, ["fetch", str(site), "--list", str(listed)])
    assert second.exit_code == 0, second.output
    assert {path: path.stat().st_mtime_ns for path in stored(site).values()} == times
    lines = journal_of(site)
    events = [line["event"] for line in lines]
    assert events.count("stored") == len(filled.contents) and events.count("end") == 2
    verify(site / ".concors" / "fetch.jsonl")
    # Neither names in the store nor the journal nor the screen say whose images they are.
    said = first.output + second.output + (site / ".concors" / "fetch.jsonl").read_text()
    said += " ".join(str(path.relative_to(site)) for path in found.values())
    for path in filled.contents.values():
        dataset = header(path)
        for key in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID"):
            assert str(dataset.get(key)) not in said, key


@pytest.mark.parametrize("protocol", ["c-get", "dicomweb"])
def test_after_a_kill_nothing_is_lost_and_nothing_repeated(
    protocol: str, filled: Any, site_of: Callable[..., Path], journal_of: Callable[..., Any]
) -> None:
    site = site_of(protocol, files_per_second=12)
    listed = site / "list.txt"
    listed.write_text(filled.real_study)
    expected = filled.images(filled.real_study)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(site), "--list", str(listed)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list((site / "store").glob("*/*.dcm"))) < len(expected) // 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = len(list((site / "store").glob("*/*.dcm")))
    assert 0 < before < len(expected)
    # As if the kill had hit a draft, and the last line of the journal, in the middle.
    folder = next((site / "store").iterdir())
    (folder / ".1-1.part").write_bytes(b"half a file")
    with (site / ".concors" / "fetch.jsonl").open("ab") as journal:
        journal.write(b'{"detail":{"bytes"')
    summary = fetch(site, [Entry(1, uid=filled.real_study)])
    assert summary.is_whole
    assert summary.stored == len(expected) - before and summary.repeated == 0
    images = [line["detail"]["image"] for line in journal_of(site) if line["event"] == "stored"]
    assert len(images) == len(set(images)) == len(expected)
    assert_equal_images(stored(site), {uid: filled.contents[uid] for uid in expected})
    assert not list(folder.glob(".*"))


def test_interrupting_ends_cleanly(
    filled: Any, site_of: Callable[..., Path], journal_of: Callable[..., Any]
) -> None:
    site = site_of("c-get")
    count = 0

    def interrupt(studies: int, of_studies: int, images: int, of_images: int) -> None:
        nonlocal count
        count = images
        if images == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(site, [Entry(1, uid=filled.real_study)], interrupt)
    assert [line["event"] for line in journal_of(site)][-1] == "interrupted"
    verify(site / ".concors" / "fetch.jsonl")
    summary = fetch(site, [Entry(1, uid=filled.real_study)])
    assert summary.is_whole and summary.present == count == 5


@pytest.mark.parametrize("protocol", ["c-get", "dicomweb"])
def test_a_query_asks_by_day_modality_and_description(
    protocol: str, filled: Any, site_of: Callable[..., Path]
) -> None:
    site = site_of(protocol)
    phantom = next(study for study in filled.studies if study != filled.real_study)
    dataset = header(filled.contents[min(filled.images(phantom))])
    day = date.fromisoformat(dataset.StudyDate)
    summary = fetch(site, days_query(day, day, "MR", f"{dataset.StudyDescription[:4]}*"))
    assert summary.is_whole and summary.wanted == 1
    assert stored(site).keys() == filled.images(phantom)
    result = RUN.invoke(app, ["fetch", str(site), "--from", "1900-01-01", "--to", "1900-01-02"])
    assert result.exit_code == 1 and "no study that matches" in result.output


def test_what_the_archive_does_not_have_is_said(filled: Any, site_of: Callable[..., Path]) -> None:
    for protocol in ("c-get", "dicomweb"):
        site = site_of(protocol, retries=0)
        listed = site / "list.txt"
        listed.write_text(f"{filled.studies[0]}\n1.2.3.4.5\nA-77\n")
        result = RUN.invoke(app, ["fetch", str(site), "--list", str(listed)])
        assert result.exit_code == 1
        assert "2, 3" in result.output and "A-77" not in result.output
        assert stored(site).keys() == filled.images(filled.studies[0])


def test_damage_in_the_store_is_fetched_again(filled: Any, site_of: Callable[..., Path]) -> None:
    site = site_of("dicomweb")
    wanted = [Entry(1, uid=filled.studies[0])]
    assert fetch(site, wanted).is_whole
    first, *others = sorted(stored(site).values())
    first.write_bytes(first.read_bytes()[:1000])
    summary = fetch(site, wanted)
    assert summary.is_whole and (summary.stored, summary.present) == (1, len(others))
    # Without its journal, the store itself tells what is there.
    (site / ".concors" / "fetch.jsonl").unlink()
    summary = fetch(site, wanted)
    assert summary.is_whole and (summary.stored, summary.present) == (0, len(others) + 1)


def test_check_reads_what_was_fetched(
    filled: Any, site_of: Callable[..., Path], phantom_hospitals: Path
) -> None:
    site = site_of("dicomweb")
    phantoms = [study for study in filled.studies if study != filled.real_study]
    assert fetch(site, [Entry(n, uid=uid) for n, uid in enumerate(phantoms, 1)]).is_whole
    oak = phantom_hospitals / "oak"
    shutil.copytree(oak / "masks", site / "masks")
    document = yaml.safe_load((site / "site.yaml").read_text())
    document["masks"] = yaml.safe_load((oak / "site.yaml").read_text())["masks"]
    (site / "site.yaml").write_text(yaml.safe_dump(document))
    result = RUN.invoke(app, ["check", str(site), "--spacing", "2.0", "--crop", "96"])
    assert result.exit_code == 0, result.output
    assert "canon 2" in result.output and "site can train: segment" in result.output


def test_wrong_login_and_wrong_name_are_one_sentence(
    filled: Any, site_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_LOGIN", "concors:wrong word")
    site = site_of("dicomweb", credentials={"environment": "ARCHIVE_LOGIN"}, retries=0)
    listed = site / "list.txt"
    listed.write_text(filled.studies[0])
    result = RUN.invoke(app, ["fetch", str(site), "--list", str(listed)])
    said = " ".join(result.output.split())
    assert result.exit_code == 1 and "refuses the login" in said and "wrong word" not in said
    (site / "login").chmod(0o644)
    text = (site / "site.yaml").read_text().replace("environment: ARCHIVE_LOGIN", "file: login")
    (site / "site.yaml").write_text(text)
    result = RUN.invoke(app, ["fetch", str(site), "--list", str(listed)])
    assert "set its mode to 0600" in " ".join(result.output.split())
