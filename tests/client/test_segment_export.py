"""Masks go to the common grid and back onto the images they were drawn on."""

from collections import Counter
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import torch
from pydicom import dcmread
from typer.testing import CliRunner

from client.cli import app
from client.gathering import patients_of
from client.geometry import apply_turn, undo_turn
from client.imaging import read_headers
from client.intake.segmentations import read_segmentations
from client.intake.walking import files_below
from client.placement import Placement, labels_back, place
from client.preprocess import prepare
from client.pseudonyms import load_secret
from client.reading import Study, read_study
from client.segment_export import export_masks, planes_back
from client.site import load_site
from protocol.config import Preprocessing
from protocol.errors import ConfigError, DataError
from shared_models.labels import LV, MYO, RV
from shared_models.networks import build
from shared_models.weights import save, to_arrays


def _studies(site: Path) -> dict[str, Study]:
    """The studies with masks of a phantom hospital by pseudonym."""
    config = load_site(site)
    frames, _ = read_headers(files_below(site / "dicom"), map)
    secret = load_secret(site, config.secret)
    jobs = patients_of(
        frames,
        secret,
        Preprocessing(),
        Counter(),
        limits=config.quality,
        masks=config.masks,
        mask_root=site / "masks",
    )
    return {job.key: read_study(job, Counter()) for job in jobs if job.mask_paths}


@pytest.fixture(scope="module", params=["elm", "fir", "oak"])
def site(request: pytest.FixtureRequest, phantom_hospitals: Path) -> Path:
    return phantom_hospitals / str(request.param)


@pytest.fixture(scope="module")
def studies(site: Path) -> dict[str, Study]:
    return _studies(site)


def _dice(one: np.ndarray, other: np.ndarray, label: int) -> float:
    a, b = one == label, other == label
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def _there_and_back(study: Study, options: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    assert study.labelled is not None
    at = place(study.cine, options, phases=study.phases)
    prepared = prepare(study.cine, options, labels=study.labelled.labels, phases=study.phases)
    assert prepared.labels is not None
    return study.labelled.labels, labels_back(prepared.labels, at)


@pytest.mark.parametrize("turn", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_a_turn_is_undone(turn: tuple[int, int, int]) -> None:
    stack = np.arange(30).reshape(5, 6)
    turns = (bool(turn[0]), bool(turn[1]), bool(turn[2]))
    np.testing.assert_array_equal(undo_turn(apply_turn(stack, turns), turns), stack)


def test_a_mask_comes_back(studies: dict[str, Study]) -> None:
    assert studies
    for study in studies.values():
        drawn, back = _there_and_back(study, Preprocessing(spacing_mm=1.5, crop_px=128))
        assert min(_dice(drawn, back, label) for label in (LV, MYO, RV)) > 0.95


def test_a_mask_that_was_not_resampled_comes_back_to_the_voxel(studies: dict[str, Study]) -> None:
    for study in studies.values():
        options = Preprocessing(spacing_mm=study.cine.spacing_mm[1], crop_px=96)
        drawn, back = _there_and_back(study, options)
        np.testing.assert_array_equal(back, drawn)


@pytest.mark.parametrize("swap", [False, True])
def test_any_turn_and_crop_is_undone_to_the_voxel(swap: bool) -> None:
    labels = np.zeros((2, 3, 40, 56), np.uint8)
    labels[:, :, 10:20, 30:44] = np.random.default_rng(0).integers(0, 4, (2, 3, 10, 14))
    turn = (swap, True, False)
    turned = apply_turn(labels, turn)
    row, column = (19.5, 19.5) if swap else (19.5, 37.5)
    at = Placement((40, 56), turn, (row, column), (1.0, 1.0), 32, (0, 1), np.eye(4))
    top, left = round(row - 15.5), round(column - 15.5)
    crop = turned[..., top : top + 32, left : left + 32]
    assert (crop > 0).sum() == (labels > 0).sum(), "the crop holds the mask"
    np.testing.assert_array_equal(labels_back(crop, at), labels)


def test_the_files_are_read_by_intake_and_by_highdicom(
    site: Path, studies: dict[str, Study], tmp_path: Path
) -> None:
    config = load_site(site)
    assert config.masks is not None
    spacing = next(iter(studies.values())).cine.spacing_mm[1]
    done = export_masks(site, Preprocessing(spacing_mm=spacing, crop_px=96), tmp_path / "out")
    assert (done.patients, done.files) == (len(studies), 2 * len(studies))
    assert not any(kind == "patient" for kind, _ in done.refused)
    for key, study in studies.items():
        paths = sorted((tmp_path / "out").glob(f"{key}-*.dcm"))
        assert [path.name for path in paths] == [f"{key}-ed.dcm", f"{key}-es.dcm"]
        again = read_segmentations(paths, study.plan, config.masks.labels)
        assert study.labelled is not None and again.phases == study.labelled.phases
        for label in (LV, MYO, RV):
            assert _dice(again.labels, study.labelled.labels, label) > 0.95
        segmentation = hd.seg.segread(paths[0])
        assert segmentation.number_of_segments == 3
        sources = {uid for _, _, uid in segmentation.get_source_image_uids()}
        assert sources <= {frame.sop_uid for phase in study.plan.frames for frame in phase}
        image = dcmread(study.plan.frames[0][0].pixels.path, stop_before_pixels=True)
        assert segmentation.PatientID == image.PatientID
        assert str(image.PatientID) not in "".join(path.name for path in paths)


def test_slices_go_back_to_the_frames_they_came_from(studies: dict[str, Study]) -> None:
    study = next(iter(studies.values()))
    assert study.labelled is not None
    options = Preprocessing(spacing_mm=study.cine.spacing_mm[1], crop_px=96)
    at = place(study.cine, options, phases=study.phases)
    prepared = prepare(study.cine, options, labels=study.labelled.labels, phases=study.phases)
    assert prepared.labels is not None
    ed, es = planes_back(prepared.labels, study.plan, {}, at)
    for p, planes in enumerate((ed, es)):
        assert [f for f, _ in planes] == list(study.plan.frames[study.labelled.phases[p]])
        np.testing.assert_array_equal(
            np.stack([plane for _, plane in planes]), study.labelled.labels[p]
        )


def test_a_networks_masks_are_exported(phantom_hospitals: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    study = tmp_path / "study.yaml"
    study.write_text(
        "study:\n  name: export\n  seed: 1\n  hospitals: {train: [elm]}\n"
        "  preprocessing: {spacing_mm: 2.5, crop_px: 64}\n"
    )
    save(tmp_path / "w.safetensors", to_arrays(build("unet", {})), {})
    given = ["export-masks", str(phantom_hospitals / "elm"), "--out", str(tmp_path / "out")]
    weights = ["--weights", str(tmp_path / "w.safetensors")]
    result = CliRunner().invoke(app, [*given, *weights, "--study", str(study)])
    assert result.exit_code == 0, result.output
    assert "6 files of 3 patients" in result.output.replace("\n", " ")
    dataset = dcmread(sorted((tmp_path / "out").iterdir())[0])
    assert dataset.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    result = CliRunner().invoke(app, [*given, *weights])
    assert result.exit_code == 1 and "--weights needs --study" in result.stderr


def test_without_masks_it_says_so(phantom_hospitals: Path, tmp_path: Path) -> None:
    text = (phantom_hospitals / "elm" / "site.yaml").read_text()
    site = tmp_path / "bare"
    site.mkdir()
    (site / "site.yaml").write_text(text.split("masks:")[0] + "min_cell: 5\n")
    with pytest.raises(ConfigError, match="no expert masks; give --weights"):
        export_masks(site, Preprocessing(), tmp_path / "out")
    (site / "dicom").mkdir()
    (site / "masks").mkdir()
    (site / "site.yaml").write_text(text)
    with pytest.raises(DataError, match="no mask that can be exported"):
        export_masks(site, Preprocessing(), tmp_path / "out")
