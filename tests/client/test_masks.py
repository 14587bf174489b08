"""Label conventions, and what anatomy says about them."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from client.archives import ACDC_LABELS
from client.masks import enclosure, likely_convention, map_labels, pick_phases
from protocol.errors import DataError
from shared_models.labels import LV, MYO, RV


def _heart() -> np.ndarray:
    """Labels (2, 3, 48, 48): a ring of muscle around the LV, an RV crescent beside it."""
    y, x = np.mgrid[:48, :48] - 24.0
    distance = np.hypot(y, x)
    labels = np.zeros((48, 48), dtype=np.uint8)
    labels[np.hypot(y, x + 12) < 14] = RV
    labels[distance < 13] = MYO
    labels[distance < 8] = LV
    return np.broadcast_to(labels, (2, 3, 48, 48)).copy()


def test_values_are_mapped_and_several_may_mean_one_class() -> None:
    values = np.array([0, 1, 2, 3, 4])
    np.testing.assert_array_equal(map_labels(values, ACDC_LABELS | {4: "LV"}), [0, RV, MYO, LV, LV])


def test_an_unmapped_value_is_refused() -> None:
    with pytest.raises(DataError, match="does not map"):
        map_labels(np.array([0, 7]), ACDC_LABELS)


@pytest.mark.parametrize("order", list(permutations((LV, MYO, RV))))
def test_every_wrong_convention_is_found_and_undone(order: tuple[int, int, int]) -> None:
    heart = _heart()
    exchanged = np.zeros_like(heart)
    for called, meant in zip(order, (LV, MYO, RV), strict=True):
        exchanged[heart == meant] = called
    relabel = likely_convention(exchanged)
    if order == (LV, MYO, RV):
        assert relabel is None
        return
    assert relabel is not None
    mended = np.zeros_like(heart)
    for called, meant in relabel.items():
        mended[exchanged == called] = meant
    np.testing.assert_array_equal(mended, heart)


def test_acdc_experts_and_every_exchange_are_far_apart(shared_data: Path) -> None:
    for path in sorted((shared_data / "acdc" / "volumes").glob("*.npz"))[::10]:
        with np.load(path) as file:
            labels = map_labels(np.stack([file["ed_label"], file["es_label"]]), ACDC_LABELS)
        assert enclosure(labels) > 0.98
        for order in permutations((LV, MYO, RV)):
            if order != (LV, MYO, RV):
                table = np.array([0, *order])
                assert enclosure(table[labels]) < 0.45


def test_a_mask_without_anatomy_is_refused() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (2, 3, 32, 32))
    with pytest.raises(DataError, match="no class encloses another"):
        likely_convention(labels)


def test_diastole_is_the_larger_cavity() -> None:
    large, small = _heart()[0], _heart()[0]
    small[small == LV] = MYO
    small[:, 20:28, 20:28] = LV
    chosen = pick_phases({7: small, 19: large, 3: np.zeros_like(large)})
    assert chosen.phases == (19, 7)
    np.testing.assert_array_equal(chosen.labels[0], large)


def test_one_phase_is_not_enough() -> None:
    with pytest.raises(DataError, match="fewer than two cardiac phases"):
        pick_phases({0: _heart()[0]})
    with pytest.raises(DataError, match="same left ventricle"):
        pick_phases({0: _heart()[0], 1: _heart()[0]})
