"""site.yaml: what is accepted, and the sentence for what is not."""

from pathlib import Path

import pytest

from client.site import inside, load_site
from protocol.errors import ConfigError

GOOD = """
name: elm
images: {format: dicom, path: dicom}
outcomes: {path: outcomes.csv, patient: id, months: fu, event: ev}
covariates: {creatinine: {column: crea, unit: mg/dL}}
masks: {format: dicom_seg, path: masks, labels: {1: RV, 2: MYO, 3: LV}}
compile: true
"""


def _write(folder: Path, text: str) -> Path:
    (folder / "site.yaml").write_text(text)
    return folder


def test_a_full_file_is_read(tmp_path: Path) -> None:
    config = load_site(_write(tmp_path, GOOD))
    assert config.masks is not None and config.masks.labels == {1: "RV", 2: "MYO", 3: "LV"}
    assert config.compile == "true"
    assert (config.min_cell, config.workers, config.device) == (5, 1, "auto")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("compile: true", "colour: red"), "unknown key 'colour' in the top level"),
        (("name: elm", "name: ../elm"), "name: string should match pattern"),
        (("mg/dL", "mol"), "'creatinine' cannot be in 'mol'; use umol/L, mg/dL"),
        (("creatinine:", "lvef_reported:"), "'lvef_reported' is not in the data dictionary"),
        (("{1: RV, 2: MYO, 3: LV}", "{1: RV, 2: MYO}"), "LV has no value"),
        (("format: dicom,", "format: jpeg,"), "images.format: input should be"),
        (("images: {format: dicom, path: dicom}", "members: []"), "masks are drawn on images"),
        (("masks: {", "members: [a]\nmasks: {"), "give either images or members"),
        (("creatinine:", "9lives:"), "a covariate's name is not a letter"),
        (("compile: true", "min_cell: 0"), "min_cell: input should be greater than or equal to 1"),
        (("compile: true", "secret: ../key"), "secret: string should match pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(_write(tmp_path, GOOD.replace(*change)))
    assert sentence in caught.value.sentence
    assert caught.value.sentence.startswith("site.yaml: ")


@pytest.mark.parametrize("path", ["..", "/etc", "dicom/../../other", "link"])
def test_no_path_leads_out_of_the_directory(tmp_path: Path, path: str) -> None:
    site = tmp_path / "site"
    (site / "dicom").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (site / "link").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"images\.path leads out of the site's directory"):
        inside(site, path, "images.path")
    assert inside(site, "dicom", "images.path") == (site / "dicom").resolve()


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"masks\.path names nothing that exists"):
        inside(tmp_path, "masks", "masks.path")
