"""Plans say what the accountant says, and nothing about accuracy that was not measured."""

import json
import math
from pathlib import Path

import pytest

from privacy import planning
from privacy.accountant import Spend, epsilon
from privacy.policy import PrivacyPolicy
from protocol.errors import ConfigError

POLICY = PrivacyPolicy(
    noise_multiplier=2.0,
    clip_norm=1.0,
    sampling_rate=1.0,
    steps_per_round=3,
    max_rounds=40,
    delta=1e-4,
    study_epsilon=8.0,
    lifetime_epsilon=20.0,
    statistics_noise=10.0,
)


def test_epsilon_by_noise_and_rounds() -> None:
    table = planning.by_noise(POLICY, (2.0, 4.0), (1, 10))
    assert table[0] == (2.0, [epsilon([Spend(2.0, 1.0, n)], 1e-4) for n in (3, 30)])
    for first, second in zip(table[0][1], table[1][1], strict=True):
        assert first > second


def test_epsilon_by_number_of_patients() -> None:
    policy = POLICY.model_copy(update={"sampling_rate": 0.2})
    rows = planning.by_cohort(policy, 100, (50, 400), 2)
    assert [row.num_patients for row in rows] == [50, 100, 400]
    assert [row.sampling_rate for row in rows] == [0.4, 0.2, 0.05]
    assert [row.per_step for row in rows] == [10, 20, 80]
    assert [row.noise for row in rows] == [0.2, 0.1, 0.025]
    assert rows[1].epsilon == epsilon([planning.training(policy, 2)], 1e-4)
    assert rows[0].epsilon > rows[1].epsilon > rows[2].epsilon


@pytest.mark.parametrize("target", [1.0, 3.0, 8.0])
def test_the_noise_for_a_target_is_the_least(target: float) -> None:
    noise = planning.noise_needed(POLICY, target, 10)
    assert noise is not None
    assert epsilon([Spend(noise, 1.0, 30)], 1e-4) <= target
    assert epsilon([Spend(0.98 * noise, 1.0, 30)], 1e-4) > target
    assert float(f"{noise:.3g}") == pytest.approx(noise, rel=1e-12)


def test_the_noise_for_sampled_steps_keeps_the_target() -> None:
    policy = POLICY.model_copy(update={"sampling_rate": 0.08})
    noise = planning.noise_needed(policy, 3.0, 10)
    assert noise is not None
    assert 2.85 < epsilon([Spend(noise, 0.08, 30)], 1e-4) <= 3.0


def test_statistics_that_are_answered_besides_leave_less_for_training() -> None:
    alone = planning.noise_needed(POLICY, 3.0, 10)
    beside = planning.noise_needed(POLICY, 3.0, 10, planning.answers(POLICY, 20))
    assert alone is not None and beside is not None and beside > alone
    assert planning.noise_needed(POLICY, 0.1, 10, planning.answers(POLICY, 20)) is None
    assert planning.answers(POLICY, 0) == []


def test_rounds_that_still_fit() -> None:
    spend, history = planning.training(POLICY, 1), [Spend(2.0, 1.0, 6)]
    left = planning.rounds_left(history, spend, 8.0, 1e-4, 40)
    assert epsilon([*history, *[spend] * left], 1e-4) <= 8.0
    assert epsilon([*history, *[spend] * (left + 1)], 1e-4) > 8.0
    assert planning.rounds_left(history, spend, math.inf, 1e-4, 40) == 40
    assert planning.rounds_left(history, spend, 0.1, 1e-4, 40) == 0


def test_measured_points_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    utility = planning.read_utility()
    assert bool(utility.source) == bool(utility.points)
    point = {
        "stage": "segment",
        "metric": "dice",
        "num_patients": 50,
        "epsilon": 3.0,
        "delta": 1e-3,
        "value": 0.8,
        "value_without": 0.9,
        "num_seeds": 2,
    }
    monkeypatch.setattr(planning, "files", lambda package: tmp_path)
    path = tmp_path / "utility.json"
    path.write_text(json.dumps({"source": "a.py", "points": [point]}))
    assert planning.read_utility().points[0].value == 0.8
    path.write_text(json.dumps({"source": "a.py", "points": [point | {"loss": 0.1}]}))
    with pytest.raises(ConfigError, match=r"utility\.json: unknown key 'loss'"):
        planning.read_utility()
