import numpy as np

from shared_models.labels import LV, MYO, RV
from shared_models.postprocess import clean_labels, quality_problems


def _heart() -> np.ndarray:
    labels = np.zeros((8, 20, 20), np.uint8)
    labels[:, 5:13, 5:13] = MYO
    labels[:, 7:11, 7:11] = LV
    labels[:, 5:13, 14:18] = RV
    return labels


def test_a_whole_heart_is_kept_and_cleaning_twice_changes_nothing() -> None:
    heart = _heart()
    assert np.array_equal(clean_labels(heart), heart)
    messy = heart.copy()
    messy[3, 0:2, 0:2] = LV
    messy[0, 19, :3] = RV
    assert np.array_equal(clean_labels(messy), heart)
    assert np.array_equal(clean_labels(clean_labels(messy)), clean_labels(messy))
    assert messy[3, 0, 0] == LV, "the input is left alone"


def test_phases_are_cleaned_each_alone() -> None:
    heart = _heart()
    empty = np.zeros_like(heart)
    assert np.array_equal(clean_labels(np.stack([heart, empty])), np.stack([heart, empty]))


def test_slices_shifted_by_breathing_stay_together() -> None:
    shifted = np.zeros((2, 9, 9), np.uint8)
    shifted[0, 1:4, 1:4] = LV
    shifted[1, 4:7, 4:7] = LV
    assert np.array_equal(clean_labels(shifted), shifted)


def test_quality_names_what_is_wrong() -> None:
    assert quality_problems(_heart()) == ()
    empty = np.zeros((8, 20, 20), np.uint8)
    assert quality_problems(empty) == (
        "LV has fewer than 10 voxels",
        "MYO has fewer than 10 voxels",
        "RV has fewer than 10 voxels",
        "LV in 0 neighbouring slices, fewer than 6",
    )
    gap = _heart()
    gap[4] = 0
    assert quality_problems(gap) == ("LV in 4 neighbouring slices, fewer than 6",)
    no_rv = _heart()
    no_rv[2:7][no_rv[2:7] == RV] = 0
    assert quality_problems(no_rv) == ("no RV in the middle slice of the LV",)
