import os
from collections.abc import Callable
from pathlib import Path

import pytest

from client.node.site_state import site_state


def _touch(path: Path) -> None:
    os.utime(path, (1, 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "settings": lambda site: _touch(site / "site.yaml"),
    "policy": lambda site: (site / "policy.yaml").write_text("max_payload_mb: 5"),
    "outcomes": lambda site: (site / "outcomes.csv").write_text("patient\n"),
    "study added": lambda site: (site / "images" / "p3").mkdir(),
    "image added": lambda site: (site / "images" / "p1" / "3.dcm").touch(),
    "image removed": lambda site: (site / "images" / "p1" / "1.dcm").unlink(),
}


@pytest.fixture
def imaged(tmp_path: Path) -> Path:
    site = tmp_path / "alpha"
    (site / "images" / "p1").mkdir(parents=True)
    (site / "images" / "p1" / "1.dcm").touch()
    (site / "outcomes.csv").write_text("patient,months,event\n")
    (site / "site.yaml").write_text(
        "name: alpha\n"
        "images: {format: dicom, path: images}\n"
        "outcomes: {path: outcomes.csv, patient: patient, months: months, event: event}\n"
    )
    for path in (site / "images" / "p1", site / "images", site / "outcomes.csv"):
        _touch(path)
    return site


@pytest.mark.parametrize("change", CHANGES)
def test_state_changes_with_the_hospitals_files(imaged: Path, change: str) -> None:
    before = site_state(imaged)
    CHANGES[change](imaged)
    assert site_state(imaged) != before


def test_state_stays_when_only_the_client_writes(imaged: Path) -> None:
    before = site_state(imaged)
    (imaged / ".concors").mkdir()
    (imaged / ".concors" / "audit.jsonl").touch()
    assert site_state(imaged) == before
