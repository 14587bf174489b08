"""The internal split: every patient in one fold, each fold with its share."""

from collections.abc import Callable

import numpy as np
import pytest

from client.cohort import Patient
from client.holdout import held_out
from protocol.validation_config import HoldOut


@pytest.fixture
def patients(make_patient: Callable[..., Patient]) -> list[Patient]:
    return [make_patient(i, masks=i % 4 == 0, event=int(i % 3 == 0)) for i in range(60)]


def test_the_folds_are_a_partition(patients: list[Patient]) -> None:
    masks = [held_out(patients, HoldOut(fold=k, num_folds=5), 1, "a") for k in range(5)]
    assert np.sum(masks, axis=0).tolist() == [1] * len(patients)


@pytest.mark.parametrize("fold", range(5))
def test_every_fold_has_its_share_of_masks_and_events(fold: int, patients: list[Patient]) -> None:
    aside = held_out(patients, HoldOut(fold=fold, num_folds=5), 1, "a")
    chosen = [patient for patient, out in zip(patients, aside, strict=True) if out]
    assert len(chosen) == 12
    assert sum(p.labels is not None for p in chosen) in (2, 3, 4)
    assert sum(p.event for p in chosen) in (3, 4, 5)


def test_the_split_depends_on_the_seed_and_the_hospital_alone(patients: list[Patient]) -> None:
    def mask(seed: int, site: str) -> bytes:
        return held_out(patients, HoldOut(), seed, site).tobytes()

    assert mask(1, "a") == mask(1, "a")
    assert mask(1, "a") != mask(2, "a")
    assert mask(1, "a") != mask(1, "b")
