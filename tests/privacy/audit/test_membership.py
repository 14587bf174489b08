"""Likelihood ratios: hand-worked Gaussians, and power on models that remember."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from privacy.accountant import Spend, epsilon
from privacy.audit.membership import (
    attack_each,
    confidence_of,
    likelihood_ratio_offline,
    likelihood_ratio_online,
    loss_threshold,
)
from privacy.audit.roc import area_under_curve

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("privacy_digits")


def test_confidence_is_the_logit_of_the_probability() -> None:
    p = np.array([1e-6, 0.2, 0.5, 0.999999])
    np.testing.assert_allclose(confidence_of(-np.log(p)), np.log(p / (1 - p)), rtol=1e-6)
    assert np.isfinite(confidence_of(np.array([0.0, 1e9]))).all()


def test_ratios_are_those_of_the_gaussians() -> None:
    rng = np.random.default_rng(0)
    shadows, inside = rng.normal(size=(200, 3)), rng.random((200, 3)) < 0.5
    shadows[inside] += 1.5
    target = np.array([0.0, 1.0, 2.0])
    online = likelihood_ratio_online(target, shadows, inside)
    offline = likelihood_ratio_offline(target, shadows, inside)
    for index in range(3):
        mine, others = shadows[inside[:, index], index], shadows[~inside[:, index], index]
        expected = stats.norm.logpdf(target[index], mine.mean(), mine.std()) - stats.norm.logpdf(
            target[index], others.mean(), others.std()
        )
        assert online[index] == pytest.approx(expected)
        assert offline[index] == pytest.approx((target[index] - others.mean()) / others.std())


def test_few_shadows_share_one_variance() -> None:
    shadows = np.array([[0.0, 10.0], [2.0, 14.0], [5.0, 20.0], [7.0, 22.0]])
    inside = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], bool)
    # Out: means 1 and 12, squares 2 and 8 about them, one degree of freedom each.
    found = likelihood_ratio_offline(np.array([3.0, 12.0]), shadows, inside)
    np.testing.assert_allclose(found, [2 / np.sqrt(5), 0])


def test_a_record_without_shadows_of_one_side_is_refused() -> None:
    with pytest.raises(ValueError, match="1 records have no shadow model of one side"):
        likelihood_ratio_online(
            np.zeros(2), np.zeros((2, 2)), np.array([[True, True], [False, True]])
        )


def test_a_target_is_not_its_own_shadow() -> None:
    confidences = np.arange(12.0).reshape(4, 3)
    seen = []

    def attack(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
        seen.append((target[0], sorted(shadows[:, 0]), len(inside)))
        return target

    scores = attack_each(confidences, np.ones((4, 3), bool), attack)
    np.testing.assert_array_equal(scores, confidences)
    assert seen[1] == (3.0, [0.0, 6.0, 9.0], 3)


def test_members_are_found_without_privacy(digits: ModuleType) -> None:
    losses = digits.membership_losses(None, num_models=8)
    areas = {
        attack.__name__: area_under_curve(
            attack_each(losses.confidences, losses.members, attack), losses.members
        )
        for attack in (loss_threshold, likelihood_ratio_online, likelihood_ratio_offline)
    }
    assert areas["likelihood_ratio_online"] >= 0.68, areas
    assert areas["likelihood_ratio_online"] > areas["loss_threshold"] > 0.55, areas


def test_members_are_hidden_with_privacy(digits: ModuleType) -> None:
    private = {"noise_multiplier": 2.5, "sampling_rate": 0.5, "num_steps": 40}
    assert epsilon([Spend(**private)], 1e-3) < 10
    losses = digits.membership_losses({**private, "learning_rate": 0.5}, num_models=8)
    scores = attack_each(losses.confidences, losses.members, likelihood_ratio_online)
    assert area_under_curve(scores, losses.members) <= 0.6
    # The models learned all the same.
    assert losses.accuracy > 0.4
