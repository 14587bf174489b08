"""Overrides: what a person may write, what is refused, and that it counts."""

import csv
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.cohort import load_cohort
from client.overrides import overrides_digest, read_overrides, series_key
from client.series_list import list_series
from protocol.config import Preprocessing
from protocol.errors import DataError

KEY = "0123456789abcdef"
HEAD = "series,sequence,view\n"


def _table(folder: Path, text: str) -> Path:
    path = folder / "overrides.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("series,view\n", "no column 'sequence'"),
        (HEAD + "1.2.840.1,cine,sax\n", "row 2 names no series"),
        (HEAD + f"{KEY},cinema,\n", "row 2 has an unknown sequence; write one of cine"),
        (HEAD + f"{KEY},,5ch\n", "row 2 has an unknown view; write one of sax"),
        (HEAD + f"{KEY},cine,\n{KEY},flow,\n", "row 3 names a series that an earlier row names"),
    ],
)
def test_a_bad_row_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as refusal:
        read_overrides(_table(tmp_path, text))
    assert "1.2.840" not in refusal.value.sentence and "\n" not in refusal.value.sentence


def test_rows_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    text = HEAD + f"{KEY},,\n{KEY[::-1]},ignore,\n{KEY}.2,,SAX\n"
    rows = read_overrides(_table(tmp_path, text))
    assert set(rows) == {(KEY[::-1], 0), (KEY, 2)}
    assert rows[(KEY[::-1], 0)].ignore and rows[(KEY, 2)].view == "sax"
    assert overrides_digest(rows) != overrides_digest({})


def test_keys_are_pseudonyms_of_this_hospital() -> None:
    first, second = series_key(b"a" * 32, "1.2.3", 0), series_key(b"b" * 32, "1.2.3", 0)
    assert first != second and len(first) == 16
    assert series_key(b"a" * 32, "1.2.3", 4) == f"{first}.4"


def test_the_list_is_filled_in_and_counts(phantom_hospitals: Path, tmp_path: Path) -> None:
    site = tmp_path / "fir"
    shutil.copytree(phantom_hospitals / "fir", site, ignore=shutil.ignore_patterns(".concors"))
    page = site / "overrides.csv"
    result = CliRunner().invoke(app, ["sort", str(site), "--csv", str(page)])
    assert result.exit_code == 0, result.output
    assert "0 of them unsure" in result.output and page.stat().st_mode & 0o077 == 0
    rows = list(csv.DictReader(page.read_text().splitlines()))
    assert {(row["found_sequence"], row["found_view"]) for row in rows} == {
        ("cine", "sax"), ("cine", "2ch"), ("cine", "4ch"), ("lge_magnitude", "sax"),
        ("localizer", "axial"), ("localizer", "coronal"), ("localizer", "sagittal"),
    }  # fmt: skip
    uids = {part.part.series_uid for part in list_series(site)[0]}
    assert not any(uid in page.read_text() + result.output for uid in uids)

    options = Preprocessing(spacing_mm=2.0, crop_px=96)
    (site / "site.yaml").write_text(
        (site / "site.yaml")
        .read_text()
        .replace("path: dicom", "path: dicom\n  overrides: overrides.csv")
    )
    before = load_cohort(site, options)
    late = next(row for row in rows if row["found_sequence"] == "lge_magnitude")
    late["sequence"] = "ignore"
    with page.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    after = load_cohort(site, options)
    assert sum(p.lge is not None for p in before.patients) == 3
    without = [p.key for p in after.patients if p.lge is None]
    assert without == [late["patient"]], "read anew, not from the cache"
    assert any(r.reason == "set aside by a person" for r in after.refused)


def test_a_key_of_no_series_is_refused(phantom_hospitals: Path, tmp_path: Path) -> None:
    site = tmp_path / "oak"
    shutil.copytree(phantom_hospitals / "oak", site, ignore=shutil.ignore_patterns(".concors"))
    _table(site, HEAD + f"{KEY},ignore,\n")
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(
        text.replace("path: dicom", "path: dicom\n  overrides: overrides.csv")
    )
    result = CliRunner().invoke(app, ["sort", str(site)])
    assert result.exit_code == 1
    assert "1 of 1 rows name a series that is not among the images" in " ".join(
        result.output.split()
    )
