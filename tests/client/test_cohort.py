"""From a hospital's directory to a cohort, end to end on phantom hospitals and real archives."""

import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from client.archives import ACDC_LABELS, acdc_patients, read_acdc
from client.check import examine
from client.cohort import Cohort, load_cohort
from client.intake.headers import read_header
from client.masks import map_labels
from client.site import load_site
from protocol.config import Preprocessing
from protocol.errors import ConcorsError, ConfigError, DataError
from shared_models.labels import LV, MYO, RV

OPTIONS = Preprocessing(spacing_mm=2.0, crop_px=96)


@pytest.fixture
def elm(phantom_hospitals: Path, tmp_path: Path) -> Path:
    """A copy of one phantom hospital that a test may spoil."""
    ignore = shutil.ignore_patterns(".concors")
    return Path(shutil.copytree(phantom_hospitals / "elm", tmp_path / "elm", ignore=ignore))


def _edit(site: Path, **changes: object) -> None:
    values = yaml.safe_load((site / "site.yaml").read_text())
    (site / "site.yaml").write_text(yaml.safe_dump(values | changes))


@pytest.fixture(scope="module")
def cohorts(phantom_hospitals: Path) -> dict[str, Cohort]:
    return {name: load_cohort(phantom_hospitals / name, OPTIONS) for name in ("elm", "fir", "oak")}


def test_every_way_to_cut_series_gives_whole_cohorts(cohorts: dict[str, Cohort]) -> None:
    for name, count, masks in (("elm", 3, 2), ("fir", 3, 1), ("oak", 2, 1)):
        cohort = cohorts[name]
        assert len(cohort.patients) == count
        assert sum(p.labels is not None for p in cohort.patients) == masks
        assert [p.key for p in cohort.patients] == sorted(p.key for p in cohort.patients)
        assert {r.reason for r in cohort.refused} == {"localizer", "long-axis view"}


def test_patients_keep_the_contract(cohorts: dict[str, Cohort]) -> None:
    for cohort in cohorts.values():
        for p in cohort.patients:
            num_slices = p.cine.shape[1]
            assert p.cine.shape == (2, num_slices, 96, 96) and p.cine.dtype == np.float32
            assert p.cine.min() >= 0.0 and p.cine.max() <= 1.0
            assert p.lge is not None and p.lge.shape == (num_slices, 96, 96)
            assert p.lge_present.dtype == bool and p.lge_present.all()
            assert p.spacing_mm == (pytest.approx(10.0, abs=1e-3), 2.0, 2.0)
            assert p.vendor == {"elm": "siemens", "fir": "philips", "oak": "canon"}[cohort.site]
            assert p.field_strength_t in (1.5, 3.0)
            assert p.event in (0, 1) and p.months > 0
            if p.labels is not None:
                assert p.labels.dtype == np.uint8 and set(np.unique(p.labels)) == {0, LV, MYO, RV}
                assert (p.labels[0] == LV).sum() > (p.labels[1] == LV).sum()


def test_masks_lie_on_their_images(cohorts: dict[str, Cohort]) -> None:
    # Blood is bright and muscle dark in the cine; under the null point of muscle also in the LGE.
    for cohort in cohorts.values():
        for p in cohort.patients:
            if p.labels is not None:
                middle = p.cine.shape[1] // 2
                image, labels = p.cine[0, middle], p.labels[0, middle]
                assert image[labels == LV].mean() > image[labels == MYO].mean() + 0.2
                assert image[labels == RV].mean() > image[labels == MYO].mean() + 0.2


def test_mask_volumes_agree_with_the_truth(
    cohorts: dict[str, Cohort], phantom_hospitals: Path
) -> None:
    for name, cohort in cohorts.items():
        with np.load(phantom_hospitals / "truth" / f"{name}_masks.npz") as file:
            stacks = [file[key] for key in file.files]
        assert stacks
        for p in cohort.patients:
            if p.labels is not None:
                assert 10 < (p.labels == LV).sum() * float(np.prod(p.spacing_mm)) / 1000 < 900


def test_outcomes_and_units_arrive(cohorts: dict[str, Cohort], phantom_hospitals: Path) -> None:
    with (phantom_hospitals / "fir" / "outcomes.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    months = sorted(float(row["Nachbeobachtung_Monate"].replace(",", ".")) for row in rows)
    assert sorted(p.months for p in cohorts["fir"].patients) == months
    qrs = sorted(p.covariates["qrs"] for p in cohorts["fir"].patients)
    written = [float(row["QRS_s"].replace(",", ".")) for row in rows if row["QRS_s"]]
    known = [value for value in qrs if not math.isnan(value)]
    np.testing.assert_allclose(known, np.sort(written) * 1000)


def test_a_second_start_reads_tensors_only(elm: Path) -> None:
    first = load_cohort(elm, OPTIONS)
    # Overwriting every image in place, sizes and times kept, shows that none is opened again.
    for path in (elm / "dicom").rglob("*"):
        if path.is_file():
            state = path.stat()
            path.write_bytes(b"x" * state.st_size)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = load_cohort(elm, OPTIONS)
    assert again.fingerprint == first.fingerprint and again.refused == first.refused
    np.testing.assert_array_equal(again.patients[0].cine, first.patients[0].cine)


def test_other_settings_or_files_are_read_anew(elm: Path) -> None:
    first = load_cohort(elm, OPTIONS)
    other = load_cohort(elm, Preprocessing(spacing_mm=2.5, crop_px=64))
    assert other.patients[0].cine.shape[-1] == 64
    next(path for path in (elm / "masks").rglob("*") if path.is_file()).unlink()
    fewer = load_cohort(elm, OPTIONS)
    count = [sum(p.labels is not None for p in c.patients) for c in (first, fewer)]
    assert count[1] == count[0] - 1 and fewer.fingerprint != first.fingerprint


def test_a_missing_slice_sets_the_study_aside_unless_the_site_allows_it(elm: Path) -> None:
    whole = load_cohort(elm, OPTIONS)
    series: dict[tuple[str, float], list[Path]] = {}
    for path in (elm / "dicom").rglob("IM*"):
        header = read_header(path)
        assert isinstance(header, tuple)
        if header[0].text.startswith("cine_tf2d_sax"):
            at = float(header[0].normal @ header[0].centre_mm)
            series.setdefault((header[0].patient_id, round(at, 1)), []).append(path)
    patient = min(number for number, _ in series)
    planes = sorted(at for number, at in series if number == patient)
    for path in series[patient, planes[len(planes) // 2]]:
        path.unlink()
    fewer = load_cohort(elm, OPTIONS)
    reasons = {r.reason: (r.kind, r.count) for r in fewer.refused}
    assert len(fewer.patients) == len(whole.patients) - 1
    kind, count = reasons[
        "slices are unevenly spaced: between others more are missing than "
        "quality.max_missing_slices of site.yaml allows"
    ]
    assert (kind, count) == ("patient", 1)
    _edit(elm, quality={"max_missing_slices": 1})
    mended = load_cohort(elm, OPTIONS)
    assert [p.cine.shape for p in mended.patients] == [p.cine.shape for p in whole.patients]
    reasons = {r.reason: (r.kind, r.count) for r in mended.refused}
    note = "a slice between others is missing, interpolated from its neighbours"
    assert reasons[note] == ("stack", 1)
    assert any(r.kind == "stack" for r in examine(mended, load_site(elm)).refused)


def test_a_damaged_cache_is_made_again(elm: Path) -> None:
    first = load_cohort(elm, OPTIONS)
    (cache,) = (elm / ".concors" / "cache").glob("*.safetensors")
    cache.write_bytes(cache.read_bytes()[:1000])
    assert load_cohort(elm, OPTIONS).fingerprint == first.fingerprint


def test_what_is_written_into_a_cached_array_stays_out_of_the_file(elm: Path) -> None:
    load_cohort(elm, OPTIONS)
    (cache,) = (elm / ".concors" / "cache").glob("*.safetensors")
    before = cache.read_bytes()
    cohort = load_cohort(elm, OPTIONS)
    cohort.patients[0].cine[:] = 0.5
    assert cohort.patients[0].cine.min() == 0.5 and cache.read_bytes() == before
    assert load_cohort(elm, OPTIONS).patients[0].cine.max() == 1.0


def test_no_number_name_or_path_is_kept(elm: Path) -> None:
    cohort = load_cohort(elm, OPTIONS)
    with (elm / "outcomes.csv").open() as stream:
        column = load_site(elm).outcomes
        assert column is not None
        numbers = [row[column.patient] for row in csv.DictReader(stream)]
    (cache,) = (elm / ".concors" / "cache").glob("*.safetensors")
    data = cache.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    record = json.loads(header["__metadata__"]["record"])
    assert set(record) == {"intake_version", "patients", "refused"}
    kept = {"key", "vendor", "field_strength_t", "spacing_mm", "quality", "partial"}
    assert set(record["patients"][0]) == kept
    text = json.dumps(header) + repr(cohort.refused) + "".join(p.key for p in cohort.patients)
    assert not any(number in text for number in numbers)
    assert str(elm) not in text and "dicom/" not in text
    assert cache.stat().st_mode & 0o077 == 0


def test_several_processes_give_the_same_bits(elm: Path) -> None:
    one = load_cohort(elm, OPTIONS)
    shutil.rmtree(elm / ".concors")
    _edit(elm, workers=2)
    assert load_cohort(elm, OPTIONS).fingerprint == one.fingerprint


def test_a_wrong_label_convention_is_refused_and_explained(elm: Path) -> None:
    masks = yaml.safe_load((elm / "site.yaml").read_text())["masks"]
    exchanged = {"LV": "RV", "RV": "LV", "MYO": "MYO"}
    _edit(elm, masks=masks | {"labels": {k: exchanged[v] for k, v in masks["labels"].items()}})
    with pytest.raises(DataError) as caught:
        load_cohort(elm, OPTIONS)
    assert "contradict masks.labels" in caught.value.sentence
    assert "LV is RV" in caught.value.sentence and "RV is LV" in caught.value.sentence
    assert not list((elm / ".concors").glob("**/*.safetensors")), "nothing half-written"


def test_masks_of_another_hospital_are_refused(elm: Path, phantom_hospitals: Path) -> None:
    shutil.rmtree(elm / "masks")
    shutil.copytree(phantom_hospitals / "oak" / "masks", elm / "masks")
    with pytest.raises(DataError, match="none of the masks of elm can be used: mask of a patient"):
        load_cohort(elm, OPTIONS)


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (lambda s: (s / "outcomes.csv").unlink(), DataError, "outcome table that site.yaml names"),
        (lambda s: (s / "site.yaml").unlink(), ConfigError, "site.yaml cannot be read"),
        (lambda s: shutil.rmtree(s / "dicom"), ConfigError, "images.path names nothing"),
        (lambda s: shutil.rmtree(s / "masks"), ConfigError, "masks.path names nothing"),
        (lambda s: _edit(s, colour="red"), ConfigError, "unknown key 'colour'"),
        (lambda s: _edit(s, images={"format": "dicom", "path": "masks"}), DataError, "no usable"),
    ],
)
def test_bad_input_is_one_sentence(
    elm: Path, spoil: object, error: type[ConcorsError], sentence: str
) -> None:
    assert callable(spoil)
    spoil(elm)
    with pytest.raises(error) as caught:
        load_cohort(elm, OPTIONS)
    assert sentence in caught.value.sentence
    assert caught.value.sentence.count(". ") == 0 and str(elm) not in caught.value.sentence


def test_a_patient_without_a_row_is_kept_without_an_outcome(elm: Path) -> None:
    lines = (elm / "outcomes.csv").read_text().splitlines()
    (elm / "outcomes.csv").write_text("\n".join(lines[:-1]) + "\n")
    cohort = load_cohort(elm, OPTIONS)
    assert sorted(p.event for p in cohort.patients)[0] == -1
    reasons = {r.reason: r.count for r in cohort.refused if r.kind == "outcome"}
    assert reasons == {"patient without a row in the outcome table": 1}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers_are_refused_or_harmless(elm: Path, seed: int) -> None:
    """Random bytes in every third file: patients may be lost, but the client says why."""
    rng = np.random.default_rng(seed)
    for path in sorted((elm / "dicom").rglob("*")):
        if path.is_file() and rng.random() < 0.3:
            data = bytearray(path.read_bytes())
            for at in rng.integers(132, 1800, rng.integers(1, 8)):
                data[at] = rng.integers(256)
            path.write_bytes(data)
    try:
        cohort = load_cohort(elm, OPTIONS)
    except DataError as error:
        assert error.sentence.startswith(("elm has no usable series", "none of the masks of elm"))
    else:
        assert all(np.isfinite(p.cine).all() for p in cohort.patients)


def test_a_pooled_site_is_its_members(phantom_hospitals: Path, cohorts: dict[str, Cohort]) -> None:
    pooled = phantom_hospitals / "pooled"
    pooled.mkdir(exist_ok=True)
    (pooled / "site.yaml").write_text("name: pooled\nmembers: [../elm, ../fir]\n")
    cohort = load_cohort(pooled, OPTIONS)
    keys = [p.key for name in ("elm", "fir") for p in cohorts[name].patients]
    assert [p.key for p in cohort.patients] == sorted(keys)
    (pooled / "site.yaml").write_text("name: pooled\nmembers: [../elm, ../elm]\n")
    with pytest.raises(DataError, match="pooled holds a patient twice"):
        load_cohort(pooled, OPTIONS)


def test_a_report_is_honest_and_what_leaves_is_suppressed(
    cohorts: dict[str, Cohort], phantom_hospitals: Path
) -> None:
    report = examine(cohorts["elm"], load_site(phantom_hospitals / "elm"))
    assert (report.found, report.usable, report.with_masks, report.with_lge) == (3, 3, 2, 3)
    assert report.vendors == {"siemens": 3} and "segment" in report.trains
    assert report.leaves["patients"] == "withheld (1 to 4)"
    assert report.leaves["vendors"] == "siemens withheld"
    assert report.leaves["follow-up"].startswith("nothing")


def test_acdc_ejection_fractions_equal_the_reference(shared_data: Path) -> None:
    archive = shared_data / "acdc"
    with (archive / "reference_cardiac_parameters.csv").open() as stream:
        reference = {row["Name"]: row for row in csv.DictReader(stream)}
    rows = acdc_patients(archive, None)
    assert len(rows) == 80
    for row in rows:
        with np.load(archive / "volumes" / f"{row['patient']}.npz") as file:
            ed, es = (map_labels(file[f"{p}_label"], ACDC_LABELS) for p in ("ed", "es"))
        for label, column in ((LV, "EF(LV)"), (RV, "EF(RV)")):
            fraction = 1 - (es == label).sum() / (ed == label).sum()
            assert fraction == pytest.approx(float(reference[row["patient"]][column]), abs=5e-13)


def test_acdc_volumes_have_their_measure(shared_data: Path) -> None:
    rows = acdc_patients(shared_data / "acdc", "HCM")[:3]
    for row, study in zip(rows, read_acdc(shared_data / "acdc", rows), strict=True):
        measure = float(np.prod(study.stack.spacing_mm))
        assert measure == pytest.approx(float(row["voxel_volume_mm3"]), rel=1e-9)
        volume_ml = (study.labels[0] == LV).sum() * measure / 1000
        assert volume_ml == pytest.approx(float(row["lv_edv_ml"]), rel=1e-4)
        assert study.stack.spacing_mm[0] == 10.0 and study.stack.spacing_mm[1] < 2.0


def test_an_acdc_site_is_a_cohort(shared_data: Path, tmp_path: Path) -> None:
    images = {"format": "acdc", "path": str(shared_data / "acdc"), "group": "RV"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"name": "acdc-RV", "images": images}))
    cohort = load_cohort(tmp_path, OPTIONS)
    assert len(cohort.patients) == 16 and all(p.labels is not None for p in cohort.patients)
    assert {p.vendor for p in cohort.patients} == {"siemens"}
    # The crop holds the whole heart, save for the outermost RV of one patient of this group.
    cut = [
        p.labels is not None and (p.labels[..., [0, -1], :].any() or p.labels[..., [0, -1]].any())
        for p in cohort.patients
    ]
    assert sum(cut) <= 1
    # In the archive, too, the right ventricle is on the left: the archive's nominal affine is
    # upright.
    for p in cohort.patients:
        assert p.labels is not None
        right = np.argwhere(p.labels[0] == RV)[:, 2].mean()
        assert right < np.argwhere(p.labels[0] == LV)[:, 2].mean()
