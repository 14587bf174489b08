"""``concors-client check`` as it is typed: what is printed, and the exit code."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app

RUN = CliRunner()


def test_a_hospital_that_can_train_passes(phantom_hospitals: Path) -> None:
    result = RUN.invoke(
        app, ["check", str(phantom_hospitals / "elm"), "--spacing", "2.0", "--crop", "96"]
    )
    assert result.exit_code == 0, result.output
    for words in ("usable", "siemens 3", "localizer", "Covariates missing", "withheld (1 to 4)"):
        assert words in result.output
    assert "elm can train: segment" in result.output


def test_a_hospital_without_masks_or_outcomes_fails(
    phantom_hospitals: Path, tmp_path: Path
) -> None:
    shutil.copytree(phantom_hospitals / "oak" / "dicom", tmp_path / "dicom")
    (tmp_path / "site.yaml").write_text("name: bare\nimages: {format: dicom, path: dicom}\n")
    result = RUN.invoke(app, ["check", str(tmp_path), "--spacing", "2.0", "--crop", "96"])
    assert result.exit_code == 1
    assert "bare cannot train" in result.output and "canon 2" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--crop", "50"], "crop_px: input should be a multiple of 16"),
        (["--spacing", "0"], "spacing_mm: input should be greater than 0.2"),
    ],
)
def test_wrong_options_are_one_sentence(
    phantom_hospitals: Path, arguments: list[str], words: str
) -> None:
    result = RUN.invoke(app, ["check", str(phantom_hospitals / "elm"), *arguments])
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_page_shows_what_was_read(phantom_hospitals: Path, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    site = phantom_hospitals / "elm"
    outcome = CliRunner().invoke(app, ["check", str(site), "--html", str(page)])
    assert outcome.exit_code == 0, outcome.output
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_mode & 0o077 == 0
    # Three patients, two phases each; one dot a patient and figure.
    assert text.count("data:image/png") == 6 and text.count("<circle") == 24
    for reason in ("localizer", "long-axis view"):
        assert reason in text
    with (site / "outcomes.csv").open() as stream:
        numbers = [line.split(",")[0] for line in stream][1:]
    assert numbers and not any(number in text for number in numbers)
    assert "<script" not in text and "http://" not in text and "https://" not in text
    outcome = CliRunner().invoke(app, ["check", str(site), "--html", str(tmp_path / "no" / "x")])
    assert outcome.exit_code == 1 and "the page cannot be written" in outcome.output
