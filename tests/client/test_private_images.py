"""Noised measurements and overlap at a hospital of images, beside the exact ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import measure as exact_measure
from client import segment_validation
from client.hospital import Hospital, open_hospital
from client.measure import load_measured
from client.policy import site_ledger
from client.private_moments import measure, overlap
from privacy.policy import PrivacyPolicy
from protocol.arrays import fingerprint
from protocol.config import Study
from protocol.payload import Question
from protocol.stats import Moments, OverlapSums
from server.initial import segmentation_weights

NAMES = ("lv_edv_ml", "lv_ef_percent", "scar_5sd_percent")
STUDY = Study.model_validate(
    {
        "name": "imaged",
        "seed": 1,
        "hospitals": {"train": ["oak"], "external": ["elm"]},
        "preprocessing": {"spacing_mm": 3.0, "crop_px": 64},
        "segment": {"network": {"name": "unet", "options": {"channels": [8, 16]}}},
        "prognosis": {"measurements": list(NAMES), "crop_px": 32},
    }
)


def terms(noise: float) -> PrivacyPolicy:
    values: dict[str, Any] = {
        "noise_multiplier": 1.0,
        "clip_norm": 1.0,
        "sampling_rate": 0.1,
        "steps_per_round": 5,
        "max_rounds": 5,
        "delta": 1e-3,
        "study_epsilon": 1e30,
        "lifetime_epsilon": 1e30,
        "statistics_noise": noise,
    }
    return PrivacyPolicy.model_validate(values)


@pytest.fixture(scope="module")
def elm(phantom_hospitals: Path) -> Hospital:
    found = open_hospital(phantom_hospitals / "elm", STUDY)
    return replace(found, config=found.config.model_copy(update={"min_cell": 1}))


@pytest.fixture
def site(elm: Hospital, tmp_path: Path) -> Hospital:
    return replace(elm, directory=tmp_path)


@pytest.fixture(scope="module")
def question() -> Question:
    return Question(STUDY, "x", {}, segmentation_weights(STUDY))


def test_measurements_are_kept_whole_and_told_noised(site: Hospital, question: Question) -> None:
    told = measure(site, question, terms(1e-4)).document["measurements"]
    exact = exact_measure.measure(site, question).document["measurements"]
    ours, theirs = Moments.from_dict(told), Moments.from_dict(exact)
    assert ours.names == NAMES and ours.n.tolist() == theirs.n.tolist()
    ranges = np.array([[50, 400], [5, 85], [0, 50]])
    measured = load_measured(site, STUDY, fingerprint(question.arrays or {}))
    values = measured.values[: len(site.training)].clip(*ranges.T)
    known = ours.n > 0
    clipped = Moments.of(NAMES, values)
    assert ours.mean[known] == pytest.approx(clipped.mean[known], abs=0.3)
    assert measure(site, question, terms(1e-4)).document["measurements"] == told
    assert [entry.purpose for entry in site_ledger(site.directory).entries()] == ["measure"]


def test_dice_is_told_noised_and_distances_are_not(site: Hospital, question: Question) -> None:
    told = OverlapSums.from_dict(overlap(site, question, terms(1e-4)).document["overlap"])
    exact = segment_validation.validate(site, question).document["overlap"]
    theirs = OverlapSums.from_dict(exact).moments
    moments = told.moments
    dice = [name.startswith("dice/") for name in moments.names]
    assert sum(dice) == 6 and moments.n[dice].tolist() == theirs.n[dice].tolist()
    assert moments.mean[dice] == pytest.approx(theirs.mean[dice], abs=0.01)
    assert not moments.n[~np.array(dice)].any()
    nobody = replace(site, training=(), held_out=(), cohorts=())
    empty = OverlapSums.from_dict(overlap(nobody, question, terms(1e-4)).document["overlap"])
    assert not empty.moments.n.any()
    assert len(site_ledger(site.directory).entries()) == 2
