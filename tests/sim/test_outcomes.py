"""The known hazard and its closed-form oracle."""

import numpy as np
import pytest
from scipy.stats import norm
from sksurv.metrics import concordance_index_censored

from sim.config import OutcomeConfig
from sim.outcomes import baseline_rate, cumulative_hazard, draw_outcome, expected_concordance
from sim.patients import IMAGE_SCORE, RECORD_SCORE, draw_patient, image_score, record_score

TAU = 60.0


def _simulate(eta: np.ndarray, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Event times truncated at tau and nothing else, by inversion."""
    months = 12 * rng.exponential(size=len(eta)) / (rate * np.exp(eta))
    return months <= TAU, np.minimum(months, TAU)


def test_oracle_agrees_with_an_independent_simulation() -> None:
    rng = np.random.default_rng(0)
    eta = rng.normal(0, 1.35, 3000)
    score = 0.7 * eta + rng.normal(0, 0.8, len(eta))
    config = OutcomeConfig(annual_event_rate=0.1, competing_rate=0.0)
    rate = baseline_rate(config, 0.0)
    hazard = cumulative_hazard(config, rate, TAU)
    found = np.array(
        [
            [concordance_index_censored(*outcome, s)[0] for s in (eta, score)]
            for outcome in (_simulate(eta, rate, rng) for _ in range(6))
        ]
    ).mean(axis=0)
    assert expected_concordance(eta, hazard) == pytest.approx(found[0], abs=0.006)
    assert expected_concordance(eta, hazard, score) == pytest.approx(found[1], abs=0.006)


def test_rare_events_reach_the_gaussian_limit() -> None:
    # Specification J5: C = Phi(s / sqrt 2) for a Gaussian eta and rare events.
    eta = norm.ppf((np.arange(1500) + 0.5) / 1500) * 0.91
    assert expected_concordance(eta, 1e-7) == pytest.approx(norm.cdf(0.91 / np.sqrt(2)), abs=0.01)


@pytest.mark.parametrize(("spread", "golden"), [(0.50, 0.636), (0.91, 0.732), (1.35, 0.810)])
def test_golden_at_four_percent_and_five_years(spread: float, golden: float) -> None:
    eta = norm.ppf((np.arange(1500) + 0.5) / 1500) * spread
    hazard = 0.04 / np.exp(spread**2 / 2) * 5
    assert expected_concordance(eta, hazard) == pytest.approx(golden, abs=0.01)


def test_laws_of_the_oracle() -> None:
    eta = np.random.default_rng(1).normal(size=200)
    oracle = expected_concordance(eta, 0.3)
    assert expected_concordance(eta, 0.3, -eta) == pytest.approx(1 - oracle)
    assert expected_concordance(eta, 0.3, np.exp(3 * eta)) == pytest.approx(oracle)
    assert expected_concordance(eta, 0.3, np.zeros(200)) == 0.5
    order = np.random.default_rng(2).permutation(200)
    assert expected_concordance(eta[order], 0.3) == pytest.approx(oracle, abs=1e-12)
    assert np.isnan(expected_concordance([0.0], 0.3))


def test_two_patients_by_hand() -> None:
    # Hazards 2:1, so the first dies first with probability 2/3 whenever someone does.
    assert expected_concordance([np.log(2), 0.0], 0.4) == pytest.approx(2 / 3)


def test_outcome_within_follow_up() -> None:
    config = OutcomeConfig(follow_up_years=(2.0, 3.0), competing_rate=0.0)
    rng = np.random.default_rng(0)
    drawn = [draw_outcome(config, 0.2, 0.5, rng) for _ in range(500)]
    assert all(0 < outcome.months <= 36 for outcome in drawn)
    assert all(outcome.months >= 24 for outcome in drawn if not outcome.event)
    # 1 - exp(-0.2 e^0.5 2.5), the mean follow-up.
    share = np.mean([outcome.event for outcome in drawn])
    assert share == pytest.approx(1 - np.exp(-0.2 * np.exp(0.5) * 2.5), abs=0.07)


def test_scores_are_standardised_in_the_default_mix() -> None:
    rng = np.random.default_rng(0)
    names, share = ["normal", "dcm", "hcm", "ischaemic"], [0.12, 0.30, 0.20, 0.38]
    patients = [
        draw_patient(str(rng.choice(names, p=share)), rng, image_sd=1.0, record_sd=0.75)
        for _ in range(400)
    ]
    image = [image_score(p.function.ejection_fraction, p.burden) for p in patients]
    record = [record_score(p.record) for p in patients]
    assert np.mean(image) == pytest.approx(IMAGE_SCORE[0], abs=0.2)
    assert np.std(image) == pytest.approx(IMAGE_SCORE[1], rel=0.1)
    assert np.mean(record) == pytest.approx(RECORD_SCORE[0], abs=0.2)
    assert np.std(record) == pytest.approx(RECORD_SCORE[1], rel=0.1)
    assert np.std([p.eta for p in patients]) == pytest.approx(1.35, rel=0.1)
