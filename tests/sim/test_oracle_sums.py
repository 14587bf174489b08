"""A model handed the phantom's true risk scores its closed-form oracle, by the sums that travel.

Whole consortia are drawn again and again with the patients' risks held; over the draws the figure's
mean must meet the closed form within its own Monte-Carlo error.
"""

from collections.abc import Callable

import numpy as np
import pytest

from protocol.stats import PairCounts, ScoreTable, merge_all, monthly_grid
from protocol.stats.censoring import CensoringCurve
from protocol.stats.table_concordance import harrell_c, uno_c
from protocol.stats.timed_pairs import uno_pairs
from sim.config import OutcomeConfig
from sim.outcomes import baseline_rate, cumulative_hazard, draw_outcome, expected_concordance

TAU = 60.0
GRID = monthly_grid(TAU)
SIZE, DRAWS = 150, 30
FRAILTY = (-0.3, 0.0, 0.4)
# Without competing deaths: these rise with the risk, and censoring that does biases every index.
COMPLETE = OutcomeConfig(follow_up_years=(5.5, 8.0), competing_rate=0.0)
CENSORED = OutcomeConfig(follow_up_years=(1.0, 8.0), competing_rate=0.0)
Outcomes = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def eta() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.normal(0, 1.25, SIZE) for _ in FRAILTY]


def draw(config: OutcomeConfig, eta: list[np.ndarray], rng: np.random.Generator) -> Outcomes:
    consortium = []
    for risks, frailty in zip(eta, FRAILTY, strict=True):
        rate = baseline_rate(config, frailty)
        drawn = [draw_outcome(config, rate, float(risk), rng) for risk in risks]
        months, event = np.array([(one.months, one.event) for one in drawn]).T
        consortium.append((months, event))
    return consortium


def hazards(config: OutcomeConfig, eta: list[np.ndarray]) -> list[np.ndarray]:
    """Return every patient's cumulative hazard at tau: the true score across hospitals."""
    at = [cumulative_hazard(config, baseline_rate(config, frailty), TAU) for frailty in FRAILTY]
    return [base * np.exp(risks) for base, risks in zip(at, eta, strict=True)]


def tables(outcomes: Outcomes, scores: list[np.ndarray]) -> ScoreTable:
    edges = tuple(np.quantile(np.concatenate(scores), np.arange(1, 400) / 400).tolist())
    return merge_all(
        [
            ScoreTable.of(*outcome, score, edges=edges, grid_months=GRID)
            for outcome, score in zip(outcomes, scores, strict=True)
        ]
    )


def assert_meets(figures: list[float], expected: float) -> None:
    error = np.std(figures, ddof=1) / np.sqrt(len(figures))
    assert error < 0.006
    # .001 for months in place of times, and for pairs that share a bin.
    assert abs(np.mean(figures) - expected) < 3 * error + 0.001


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_across_hospitals_from_score_tables(eta: list[np.ndarray], noise: float) -> None:
    rng = np.random.default_rng(5)
    truth = hazards(COMPLETE, eta)
    scores = [np.log(hazard) + noise * rng.normal(size=SIZE) for hazard in truth]
    ones, everyone = np.zeros(SIZE * len(FRAILTY)), np.concatenate(truth)
    expected = expected_concordance(ones, everyone, np.concatenate(scores))
    figures: dict[str, list[float]] = {"harrell": [], "uno": []}
    for _ in range(DRAWS):
        table = tables(draw(COMPLETE, eta, rng), scores)
        figures["harrell"].append(harrell_c(table).value)
        censored = tables(draw(CENSORED, eta, rng), scores)
        curve = CensoringCurve.from_table(censored.life_table())
        figures["uno"].append(uno_c(censored, curve).value)
    for found in figures.values():
        assert_meets(found, expected)


def pair_index(outcome: tuple[np.ndarray, np.ndarray], risk: np.ndarray) -> float:
    return PairCounts.of(*outcome, risk, tau_months=TAU).c_index


def uno_index(outcome: tuple[np.ndarray, np.ndarray], risk: np.ndarray) -> float:
    table = ScoreTable.of(*outcome, risk, edges=(0.0,), grid_months=GRID)
    curve = CensoringCurve.from_table(table.life_table())
    return uno_pairs(*outcome, risk, tau_months=TAU, censoring=curve).value


@pytest.mark.parametrize(
    ("config", "index"), [(COMPLETE, pair_index), (CENSORED, uno_index)], ids=["harrell", "uno"]
)
def test_within_a_hospital_from_pairs(
    eta: list[np.ndarray], config: OutcomeConfig, index: Callable[..., float]
) -> None:
    rng = np.random.default_rng(6)
    figures = [index(draw(config, eta, rng)[1], eta[1]) for _ in range(DRAWS)]
    assert_meets(figures, expected_concordance(np.zeros(SIZE), hazards(config, eta)[1]))
