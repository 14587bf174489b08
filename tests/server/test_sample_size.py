"""The published criteria at published figures, and the spread of C against simulation."""

import math

import numpy as np
import pytest

from protocol.errors import ConfigError
from protocol.stats import LifeTable
from server.sample_size import (
    Followed,
    c_index_se,
    expected_shrinkage,
    largest_r2,
    patients_for_optimism,
    patients_for_overall_risk,
    patients_for_shrinkage,
    risk_set_variation,
)


@pytest.mark.parametrize(("p", "r2", "n"), [(30, 0.05, 5249), (10, 0.05, 1750), (10, 0.1, 850)])
def test_shrinkage_at_worked_figures(p: int, r2: float, n: int) -> None:
    # 10 / (0.1 * 0.117783) = 849.02: 849 are too few by a fiftieth of a patient.
    assert patients_for_shrinkage(p, r2) == n


def test_the_published_example_of_venous_thromboembolism() -> None:
    # Riley et al. 2019, section 5: rate 0.065, mean follow-up 2.07 years, R2 0.051, horizon 2.
    # 100 patients: 207 person-years, 13.455 events, l0 = 13.455 ln 0.13455 - 13.455 = -40.44,
    # 1 - exp(-0.8088) = 0.555.
    followed = Followed(100_000, 13_455, 207_000.0)
    assert largest_r2(followed) == pytest.approx(0.555, abs=5e-4)
    assert patients_for_shrinkage(30, 0.051) == 5143
    # S = 0.051 / (0.051 + 0.05 * 0.555) = 0.648
    assert patients_for_optimism(30, 0.051, largest_r2(followed)) == 1039


def test_overall_risk_is_met_at_n_and_not_before() -> None:
    followed = Followed(1000, 80, 3000.0)
    n = patients_for_overall_risk(followed, 5.0)

    def lower(patients: int) -> float:
        half = 1.959964 * math.sqrt(followed.rate / (patients * followed.mean_years))
        return math.exp(-(followed.rate - half) * 5) - math.exp(-followed.rate * 5)

    assert lower(n) <= 0.05 < lower(n - 1)


def test_expected_shrinkage_inverts_the_criterion() -> None:
    assert expected_shrinkage(5249, 30, 0.05) == pytest.approx(0.9, abs=1e-4)
    assert expected_shrinkage(100, 30, 0.05) < 0.2
    assert expected_shrinkage(10**7, 30, 0.05) > 0.999


def harrell(time: np.ndarray, event: np.ndarray, score: np.ndarray) -> float:
    earlier = np.flatnonzero(event)
    later = time[None, :] > time[earlier][:, None]
    return float(((score[earlier][:, None] > score[None, :]) & later).sum() / later.sum())


@pytest.mark.parametrize("effect", [0.0, 0.5, 0.85, 1.5])
@pytest.mark.parametrize(
    ("number", "end", "spread"), [(100, 1e9, 0.0), (300, 0.1, 0.0), (200, 0.0, 1.6)]
)
def test_the_spread_of_c_is_that_of_simulation(
    effect: float, number: int, end: float, spread: float
) -> None:
    rng = np.random.default_rng(4)
    c, followed, variation = [], [], []
    for _ in range(500):
        score = rng.normal(size=number)
        time = rng.exponential(np.exp(-effect * score))
        censoring = end + spread * rng.uniform(0, 1, number)
        event, observed = time <= censoring, np.minimum(time, censoring)
        c.append(harrell(observed, event, score))
        followed.append(Followed(number, int(event.sum()), float(observed.sum())))
        at_risk = (observed[None, :] >= observed[event][:, None]).sum(axis=1)
        variation.append(at_risk.var() / at_risk.mean() ** 2)
    expected = np.mean(
        [
            c_index_se([f], float(np.mean(c)), [v])
            for f, v in zip(followed[:20], variation[:20], strict=True)
        ]
    )
    # The standard deviation of 500 draws is itself known to 3 %.
    assert 0.85 < expected / np.std(c) < 1.2
    by_default = np.mean([c_index_se([f], float(np.mean(c))) for f in followed[:20]])
    assert 0.82 < by_default / np.std(c) < 1.2


def test_without_censoring_and_signal_it_is_kendalls_tau() -> None:
    # Var(tau) = 2 (2n + 5) / (9 n (n - 1)), C = (tau + 1) / 2: sd(C) about 1 / (3 sqrt n).
    n = 10_000
    assert c_index_se([Followed(n, n, n)], 0.5) == pytest.approx(1 / (3 * math.sqrt(n)), rel=1e-3)


def test_two_equal_hospitals_halve_the_variance_and_one_without_events_adds_nothing() -> None:
    one = Followed(200, 40, 800.0)
    single = c_index_se([one], 0.7)
    assert c_index_se([one, one], 0.7) == pytest.approx(single / math.sqrt(2), rel=1e-12)
    assert c_index_se([one, Followed(50, 0, 100.0)], 0.7) == single


def test_the_variation_of_risk_sets_comes_from_a_life_table() -> None:
    # 100 patients, one event a month, nobody censored: numbers at risk 100 .. 1, cv^2 1/3.
    grid = tuple(float(month) for month in range(101))
    table = LifeTable.of(
        np.arange(1, 101), np.ones(100), np.zeros(100, int), grid_months=grid, names=("all",)
    )
    assert risk_set_variation(table) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Followed(10, 11, 5.0), "11 events in 10 patients cannot be"),
        (lambda: Followed(10, 1, 0.0), "0 person-years cannot be"),
        (lambda: largest_r2(Followed(10, 0, 5.0)), "There is no event yet"),
        (lambda: patients_for_shrinkage(0, 0.1), "A model of 0 parameters"),
        (lambda: patients_for_shrinkage(5, 0.9), "R-squared of 0.9 cannot be reached"),
        (lambda: patients_for_overall_risk(Followed(10, 1, 5.0), 0.0), "A horizon of 0 years"),
        (lambda: c_index_se([Followed(10, 0, 5.0)], 0.7), "no event to judge a model by"),
        (lambda: c_index_se([Followed(10, 5, 5.0)], 1.0), "A C-index of 1 cannot be planned"),
    ],
)
def test_what_cannot_be_planned_is_said(call: object, sentence: str) -> None:
    assert callable(call)
    with pytest.raises(ConfigError, match=sentence):
        call()
