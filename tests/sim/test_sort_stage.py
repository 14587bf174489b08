"""The sorting network trained by real apps at phantom hospitals, and put to use at one of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from client.imaging import read_frames
from client.intake.decoder import Decoder
from client.intake.parts import UNSURE_BELOW, sort_parts
from client.sorter import decide
from protocol.config import Study
from protocol.series import SEQUENCES
from protocol.stats import merge_all
from protocol.stats.confusion import ConfusionSums
from sim.engines.local import run_local

# A study of three hospitals, on a machine that may have other things to do.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = {
    "name": "sorting",
    "seed": 5,
    "hospitals": {"train": ["siemens", "ge"], "external": ["canon"]},
    "stages": ["survey", "sort", "validate"],
    "preprocessing": {"spacing_mm": 2.5, "crop_px": 32},
    "sort": {"rounds": 16},
    "validate": {"subgroups": False},
}


@pytest.fixture(scope="module")
def run_dir(whole_examinations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sorting")
    (folder / "study.yaml").write_text(yaml.safe_dump({"study": STUDY}))
    sites = [whole_examinations / name for name in ("siemens", "ge", "canon")]
    run_local(folder / "study.yaml", folder, sites)
    return folder


def test_hospitals_that_never_saw_each_other_learn_to_sort(run_dir: Path) -> None:
    results = json.loads((run_dir / "results.json").read_text())
    for losses in results["training"]["sort"]["loss"].values():
        assert losses[-1] < 0.5 * losses[0]
    sites = results["arms"]["federated"]["sites"]
    assert "sorting" in sites["canon"]
    sums = [ConfusionSums.from_dict(sites["canon"]["sorting"]["sequence"])]
    pooled = merge_all(sums)
    assert pooled.n > 40
    commonest = float(pooled.counts.sum(axis=1).max() / pooled.n)
    assert pooled.accuracy > max(0.7, commonest + 0.2), "at a vendor that did not train"
    assert results["study"]["models"]["sort"]


def test_the_network_decides_only_what_the_rules_leave_open(
    run_dir: Path, whole_examinations: Path
) -> None:
    frames, _ = read_frames(whole_examinations / "canon" / "dicom")
    study = [frame for frame in frames if frame.study_uid == frames[0].study_uid]
    parts = sort_parts(study)
    first, *others = parts
    unsure = [replace(first, sequence="other", view="other", confidence=0.3), *others]
    with Decoder() as decoder:
        decided = decide(unsure, run_dir / "sort" / "final.safetensors", decoder)
    assert decided[0].by == "network" and decided[0].sequence in SEQUENCES
    assert "the rules were unsure" in decided[0].reason
    assert decided[1:] == others
    assert min(part.confidence for part in others) >= UNSURE_BELOW


def test_the_stage_needs_the_survey() -> None:
    with pytest.raises(ValueError, match="needs the counts of the stage survey"):
        Study.model_validate({**STUDY, "stages": ["sort", "validate"]})
