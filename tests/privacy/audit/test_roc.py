"""Area and rates of an attack: hand-worked, and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from privacy.audit.roc import area_under_curve, interval, true_positive_rate


def test_the_area_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores, members = rng.integers(0, 8, (5, 40)).astype(float), rng.random((5, 40)) < 0.4
    expected = roc_auc_score(members.ravel(), scores.ravel())
    assert area_under_curve(scores, members) == pytest.approx(expected, abs=1e-12)
    reversed_area = area_under_curve(-scores, members)
    assert reversed_area == pytest.approx(1 - expected, abs=1e-12)


def test_a_hand_worked_area_and_rate() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0, 2.5])
    members = np.array([1, 0, 1, 0, 1], bool)
    # Pairs: 4 beats both, 2.5 and 2 beat 1 only: 4 of 6.
    assert area_under_curve(scores, members) == pytest.approx(4 / 6)
    assert true_positive_rate(scores, members, 0.0) == pytest.approx(1 / 3)
    assert true_positive_rate(scores, members, 0.5) == 1.0


def test_the_rate_is_on_scikit_learns_curve() -> None:
    rng = np.random.default_rng(1)
    members = rng.random(300) < 0.5
    scores = rng.normal(members * 1.0)
    false, true, _ = roc_curve(members, scores, drop_intermediate=False)
    assert true_positive_rate(scores, members, 0.05) == pytest.approx(true[false <= 0.05].max())


def test_equal_scores_give_no_free_members() -> None:
    members = np.array([1, 0] * 10, bool)
    assert true_positive_rate(np.ones(20), members) == 0
    assert area_under_curve(np.ones(20), members) == 0.5


def test_the_interval_covers_and_knows_that_models_share_records() -> None:
    rng = np.random.default_rng(2)
    members = rng.random((1, 200)) < 0.5
    scores = rng.normal(members * 0.8)
    low, high = interval(area_under_curve, scores, members, np.random.default_rng(0))
    assert low < area_under_curve(scores, members) < high
    # The same scores written down ten times say no more.
    again = interval(
        area_under_curve, np.repeat(scores, 10, 0), np.repeat(members, 10, 0),
        np.random.default_rng(0),
    )  # fmt: skip
    assert again == pytest.approx((low, high))


def test_one_side_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="0 members and 3 others"):
        area_under_curve(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="rate of false positives 1"):
        true_positive_rate(np.zeros(2), np.array([True, False]), 1.0)
