"""Hospitals on disk: determinism, conformity, vendors' habits, masks, records."""

import csv
import hashlib
import io
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import yaml

from client.dictionary import COVARIATES, convert
from client.site import load_site
from protocol.errors import ConfigError
from shared_models.labels import CLASS_NAMES
from sim.config import PhantomConfig, load_phantom_config
from sim.hospitals import make_hospitals
from sim.outcomes import expected_concordance
from sim.records import RECORD_STYLES
from sim.truth import oracle_concordance, read_truth

VENDORS = ("siemens", "philips", "ge", "canon")
STYLES = ("german", "plain", "american", "italian")


def _config(num_patients: int = 2, **changes: object) -> PhantomConfig:
    hospitals = [
        {
            "name": f"{vendor}_house",
            "num_patients": num_patients,
            "num_masks": 1,
            "vendors": {vendor: 1.0},
            "records": style,
            "segments": "rv_first" if vendor in ("philips", "ge") else "lv_first",
        }
        for vendor, style in zip(VENDORS, STYLES, strict=True)
    ]
    images = {"cine_frames": 5, "matrix_px": 64, "slice_step_mm": 14.0}
    return PhantomConfig.model_validate({"hospitals": hospitals, "images": images, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospitals")
    make_hospitals(_config(), out, seed=3)
    return out


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _images(made: Path, vendor: str, patient: int = 0) -> list[pydicom.Dataset]:
    folder = sorted((made / f"{vendor}_house" / "dicom").iterdir())[patient]
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("IM*"))]


def _cine(images: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    found = []
    for image in images:
        words = image.SeriesDescription.lower()
        late = "ContrastBolusAgent" in image
        if "localizer" not in words and "ch" not in words.split()[-1] and not late:
            found.append(image)
    return found


def test_same_seed_same_bytes_whatever_the_workers(made: Path, tmp_path: Path) -> None:
    make_hospitals(_config(), tmp_path, seed=3, workers=2)
    assert _hashes(tmp_path) == _hashes(made)


def test_another_seed_other_patients(made: Path, tmp_path: Path) -> None:
    make_hospitals(_config(1), tmp_path, seed=4)
    old = read_truth(made, "ge_house").patients[0]
    new = read_truth(tmp_path, "ge_house").patients[0]
    assert old.eta != new.eta and old.patient_id != new.patient_id


def test_a_patient_does_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    make_hospitals(_config(3), tmp_path, seed=3)
    for vendor in VENDORS:
        few = read_truth(made, f"{vendor}_house").patients
        more = read_truth(tmp_path, f"{vendor}_house").patients
        assert [p.eta for p in few] == [p.eta for p in more[:2]]


def test_truth_lies_outside_the_hospitals(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == sorted(
        [*(f"{vendor}_house" for vendor in VENDORS), "truth"]
    )
    for vendor in VENDORS:
        names = {path.name for path in (made / f"{vendor}_house").iterdir()}
        assert names == {"dicom", "masks", "outcomes.csv", "site.secret", "site.yaml"}


@pytest.mark.parametrize("vendor", VENDORS)
def test_images_are_conforming(made: Path, vendor: str) -> None:
    uids = set()
    for image in _images(made, vendor):
        assert image.Modality == "MR"
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.pixel_array.max() < 2**image.BitsStored
        assert image.MagneticFieldStrength in (1.5, 3.0)
        for element in image.iterall():
            if element.VR == "UI" and element.value:
                assert pydicom.uid.UID(str(element.value)).is_valid
            if element.VR == "DS" and element.value is not None:
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(value)) <= 16 for value in values)
        uids.add(image.SOPInstanceUID)
        again = io.BytesIO()
        pydicom.dcmwrite(again, image, enforce_file_format=True)
        assert pydicom.dcmread(io.BytesIO(again.getvalue())) == image
    assert len(uids) == len(_images(made, vendor))


@pytest.mark.parametrize("vendor", VENDORS)
def test_late_enhancement_is_tagged(made: Path, vendor: str) -> None:
    late = [image for image in _images(made, vendor) if "ContrastBolusAgent" in image]
    assert late
    for image in late:
        if "NumberOfFrames" in image:
            modifier = image.SharedFunctionalGroupsSequence[0].MRModifierSequence[0]
            assert modifier.InversionRecovery == "YES"
            assert 250 < modifier.InversionTimes < 480
        else:
            assert list(image.ScanningSequence) == ["GR", "IR"]
            assert "M" in image.ImageType
            assert 250 < image.InversionTime < 480


def test_siemens_writes_one_series_a_slice(made: Path) -> None:
    cine = _cine(_images(made, "siemens"))
    series: dict[str, set[tuple[float, ...]]] = {}
    for image in cine:
        assert image.Manufacturer == "SIEMENS"
        assert "RescaleSlope" not in image
        assert image[0x0051, 0x100B].value == "64*64"
        series.setdefault(image.SeriesInstanceUID, set()).add(tuple(image.ImagePositionPatient))
    assert len(series) > 6
    assert all(len(positions) == 1 for positions in series.values())


def test_philips_numbers_at_random_and_rescales(tmp_path: Path) -> None:
    config = _config().model_dump()
    config["hospitals"] = [h for h in config["hospitals"] if h["name"] == "philips_house"]
    config["quirks"] = {"enhanced": False}
    make_hospitals(PhantomConfig.model_validate(config), tmp_path, seed=3)
    cine = _cine(_images(tmp_path, "philips"))
    assert len({image.SeriesInstanceUID for image in cine}) == 1
    by_number = sorted(cine, key=lambda image: image.InstanceNumber)
    times = [float(image.TriggerTime) for image in by_number]
    heights = [float(image.ImagePositionPatient[2]) for image in by_number]
    assert times[:5] != sorted(times[:5]) or heights != sorted(heights, reverse=True)
    assert sorted(image.InstanceNumber for image in cine) == list(range(1, len(cine) + 1))
    assert all(float(image.RescaleSlope) != 1 for image in cine)
    assert cine[0][0x2005, 0x100E].VR == "FL"


def test_ge_writes_one_series_with_its_private_groups(made: Path) -> None:
    cine = _cine(_images(made, "ge"))
    assert len({image.SeriesInstanceUID for image in cine}) == 1
    assert cine[0][0x0019, 0x109C].value == "fiesta"
    assert cine[0][0x0043, 0x102F].value == 0
    assert "SequenceName" not in cine[0]
    assert float(cine[0].SpacingBetweenSlices) == 14.0


def test_canon_writes_enhanced_with_useless_temporal_index(made: Path) -> None:
    (cine,) = _cine(_images(made, "canon"))
    assert cine.SOPClassUID == pydicom.uid.EnhancedMRImageStorage
    groups = cine.PerFrameFunctionalGroupsSequence
    assert len(groups) == cine.NumberOfFrames == len(cine.pixel_array)
    assert {g.FrameContentSequence[0].TemporalPositionIndex for g in groups} == {1}
    delays = {g.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime for g in groups}
    assert len(delays) == 5


def test_private_tags_can_be_removed(tmp_path: Path) -> None:
    make_hospitals(_config(1, quirks={"private_tags": False}), tmp_path, seed=3)
    for vendor in VENDORS:
        for image in _images(tmp_path, vendor):
            assert not any(element.tag.is_private for element in image)


def test_zip_interpolation_doubles_the_matrix(tmp_path: Path) -> None:
    config = _config(1).model_dump()
    config["hospitals"] = [h for h in config["hospitals"] if h["name"] == "ge_house"]
    config["quirks"] = {"zip_interpolation": True}
    make_hospitals(PhantomConfig.model_validate(config), tmp_path, seed=3)
    cine = _cine(_images(tmp_path, "ge"))
    assert cine[0].Rows == 128
    assert np.load(tmp_path / "truth" / "ge_house_masks.npz")["patient_00000"].shape[-1] == 128


def _plane(dataset: pydicom.Dataset, frame: int | None) -> tuple[tuple[float, ...], float]:
    """Position and trigger delay of an image or of a frame (from 1)."""
    if frame is None:
        return tuple(dataset.ImagePositionPatient), float(dataset.TriggerTime)
    groups = dataset.PerFrameFunctionalGroupsSequence[frame - 1]
    position = tuple(groups.PlanePositionSequence[0].ImagePositionPatient)
    delay = groups.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime
    return position, float(delay)


@pytest.mark.parametrize("vendor", VENDORS)
def test_masks_equal_the_truth(made: Path, vendor: str) -> None:
    name = f"{vendor}_house"
    truth = read_truth(made, name)
    (patient,) = [p for p in truth.patients if p.has_expert_mask]
    labels = np.load(made / "truth" / f"{name}_masks.npz")[patient.mask_key]
    site = load_site(made / name)
    assert site.masks is not None
    files = sorted((made / name / "masks").iterdir())
    assert [path.name for path in files] == ["MK0001.dcm", "MK0002.dcm"]
    images = [i for n in range(2) for i in _images(made, vendor, n)]
    sources = {image.SOPInstanceUID: image for image in images}
    for phase, path in enumerate(files):
        mask = hd.seg.segread(path)
        assert patient.patient_id not in path.name
        numbers = {value: number for number, value in site.masks.labels.items()}
        for label, class_name in CLASS_NAMES.items():
            number = numbers[class_name]
            assert mask.get_segment_description(number).segment_label.startswith(class_name)
            _compare(mask, number, labels[phase] == label, sources)
        listed = {item.SeriesInstanceUID for item in mask.ReferencedSeriesSequence}
        assert listed <= {image.SeriesInstanceUID for image in images}
    expected_phase = [0.0, patient.es_frame]
    assert expected_phase[1] > 0


def _compare(
    mask: hd.seg.Segmentation, number: int, truth: np.ndarray, sources: dict[str, pydicom.Dataset]
) -> None:
    """Place every frame of a segment by its source image; all the rest must be empty."""
    origin = None
    placed: dict[tuple[float, ...], np.ndarray] = {}
    delays = set()
    pixels = mask.pixel_array
    for frame, groups in zip(pixels, mask.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        image = sources[source.ReferencedSOPInstanceUID]
        position, delay = _plane(image, source.get("ReferencedFrameNumber"))
        own = tuple(groups.PlanePositionSequence[0].ImagePositionPatient)
        np.testing.assert_allclose(own, position, atol=1e-3)
        placed[position] = frame
        delays.add(delay)
        origin = image
    assert origin is not None and len(delays) == 1
    # Base to apex runs downwards in the patient, so slices sort by falling height.
    found = [placed[p] for p in sorted(placed, key=lambda p: -p[2])]
    expected = [plane for plane in truth if plane.any()]
    np.testing.assert_array_equal(np.array(found), np.array(expected))


@pytest.mark.parametrize("style", sorted(RECORD_STYLES))
def test_units_are_known_to_the_data_dictionary(style: str) -> None:
    for name, column in RECORD_STYLES[style].columns.items():
        assert column.unit in COVARIATES[name].units


@pytest.mark.parametrize("vendor", VENDORS)
def test_records_convert_back(made: Path, vendor: str) -> None:
    site = load_site(made / f"{vendor}_house")
    assert site.outcomes is not None
    text = (made / f"{vendor}_house" / "outcomes.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text), delimiter=";" if ";" in text else ","))
    truth = {p.patient_id: p for p in read_truth(made, f"{vendor}_house").patients}
    assert {row[site.outcomes.patient] for row in rows} == set(truth)
    for row in rows:
        patient = truth[row[site.outcomes.patient]]
        assert site.outcomes.months is not None and site.outcomes.event is not None
        assert float(row[site.outcomes.months].replace(",", ".")) == patient.months
        assert int(row[site.outcomes.event]) == patient.event
        for name, entry in site.covariates.items():
            value = convert(name, row[entry.column], entry.unit)
            low, high = COVARIATES[name].low, COVARIATES[name].high
            assert np.isnan(value) or low <= value <= high


def test_truth_carries_the_oracle(made: Path) -> None:
    truths = [read_truth(made, f"{vendor}_house") for vendor in VENDORS]
    one = truths[0]
    eta = [patient.eta for patient in one.patients]
    assert one.oracle_c == expected_concordance(eta, one.cumulative_hazard_tau)
    assert 0.5 < oracle_concordance(truths) < 1
    for patient in one.patients:
        assert patient.eta == pytest.approx(patient.eta_image + patient.eta_covariates, abs=2e-6)
        ejected = patient.edv_ml - patient.esv_ml
        assert patient.lvef_percent == pytest.approx(100 * ejected / patient.edv_ml, abs=1e-3)


def test_existing_directory_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ge_house").mkdir()
    (tmp_path / "ge_house" / "note").write_text("kept")
    with pytest.raises(ConfigError, match=r"'ge_house' exists in .* already; choose an empty"):
        make_hospitals(_config(1), tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["ge_house"]


def test_nothing_half_written_on_failure(tmp_path: Path) -> None:
    def stop(hospital: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_hospitals(_config(1), tmp_path, seed=0, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_masks": 9}, "has 9 masks for 2 patients"),
        ({"vendors": {"acme": 1.0}}, "vendors.acme"),
        ({"vendors": {"ge": 0.0}}, "gives every entry of vendors the weight 0"),
        ({"field_strengths_t": {7.0: 1.0}}, "has field strength 7.0 T; use 1.5 or 3.0"),
        ({"beds": 3}, "unknown key 'beds'"),
    ],
)
def test_bad_configuration_is_one_sentence(tmp_path: Path, change: dict, message: str) -> None:
    hospital = {"name": "one", "num_patients": 2, "vendors": {"ge": 1.0}} | change
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"simulation": {"phantom": {"hospitals": [hospital]}}}))
    with pytest.raises(ConfigError, match=message):
        load_phantom_config(path)


def test_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("study: {}\n")
    with pytest.raises(ConfigError, match=r"has no 'simulation.phantom' section"):
        load_phantom_config(path)
