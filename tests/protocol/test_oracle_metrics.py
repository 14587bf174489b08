"""The true model scores its closed-form oracle in every metric, however many are censored.

Exponential times with hazard l_i = exp(score) / 40 months. For patients i and j
    P(T_i < T_j, T_i < tau)  = l_i / (l_i + l_j) (1 - exp(-(l_i + l_j) tau))    -> C_tau
    P(T_i <= t, T_j > t)     = (1 - exp(-l_i t)) exp(-l_j t)                    -> AUC(t)
    E (1{T > t} - S(t))^2    = S(t) (1 - S(t))                                  -> BS(t)
averaged over the drawn scores, so that only the times are random.
"""

import numpy as np
import pytest

from protocol.stats import Histogram, merge_all
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_fit import fit_calibration
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table, decision_curve
from protocol.stats.score_table import ScoreTable, score_edges
from protocol.stats.table_concordance import auc_at, harrell_c, uno_c

TAU = 36.0
GRID = tuple(float(value) for value in np.arange(0, TAU + 0.5, 0.5))
NUMBER, HOSPITALS = 6000, 6
THRESHOLD = 0.6


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20)
    score = rng.normal(size=NUMBER)
    rate = np.exp(score) / 40
    onset, end = rng.exponential(1 / rate), rng.uniform(2, 50, NUMBER)
    return {
        "score": score,
        "rate": rate,
        "months": np.minimum(onset, end),
        "event": onset <= end,
        "hospital": rng.integers(0, HOSPITALS, NUMBER),
    }


def parts(drawn: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    chosen = [drawn["hospital"] == index for index in range(HOSPITALS)]
    return [{name: values[which] for name, values in drawn.items()} for which in chosen]


@pytest.fixture(scope="module")
def total(drawn: dict[str, np.ndarray]) -> ScoreTable:
    scores = [Histogram.of(p["score"], -5.0, 5.0, num_bins=5000) for p in parts(drawn)]
    edges = score_edges(merge_all(scores), 1000)
    tables = [
        ScoreTable.of(p["months"], p["event"], p["score"], edges=edges, grid_months=GRID)
        for p in parts(drawn)
    ]
    return merge_all(tables)


@pytest.fixture(scope="module")
def censoring(total: ScoreTable) -> CensoringCurve:
    return CensoringCurve.from_table(total.life_table())


def test_uno_meets_the_oracle_and_harrell_need_not(
    drawn: dict[str, np.ndarray], total: ScoreTable, censoring: CensoringCurve
) -> None:
    rate = np.sort(drawn["rate"][:2500])[::-1]
    both = rate[:, None] + rate[None, :]
    first = rate[:, None] / both * -np.expm1(-both * TAU)
    oracle = np.triu(first, 1).sum() / (first.sum() - np.trace(first))
    found = uno_c(total, censoring)
    assert found.value == pytest.approx(oracle, abs=0.012)
    assert found.low < oracle < found.high
    # Censoring weighs early events more in Harrell's C: it estimates another figure, though near.
    assert harrell_c(total).value != pytest.approx(found.value, abs=1e-4)


@pytest.mark.parametrize("month", [12.0, 24.0, 36.0])
def test_auc_meets_the_oracle(
    drawn: dict[str, np.ndarray], total: ScoreTable, censoring: CensoringCurve, month: float
) -> None:
    rate = np.sort(drawn["rate"])[::-1]
    case, control = -np.expm1(-rate * month), np.exp(-rate * month)
    below = np.cumsum(control[::-1])[::-1] - control  # controls with a lower rate
    oracle = (case @ below + (case * control).sum() / 2) / (case.sum() * control.sum())
    found = auc_at(total, censoring, month)
    assert found.value == pytest.approx(oracle, abs=0.015)
    assert found.error_bound < 1e-3


def test_brier_meets_the_oracle(drawn: dict[str, np.ndarray], censoring: CensoringCurve) -> None:
    horizons = (12.0, 24.0, 36.0)
    sums = [
        BrierSums.of(
            p["months"],
            p["event"],
            np.exp(-p["rate"][:, None] * np.asarray(horizons)),
            horizons_months=horizons,
            censoring=censoring,
        )
        for p in parts(drawn)
    ]
    survival = np.exp(-drawn["rate"][:, None] * np.asarray(horizons))
    oracle = (survival * (1 - survival)).mean(axis=0)
    np.testing.assert_allclose(merge_all(sums).scores, oracle, atol=0.008)


def test_the_true_model_is_calibrated_in_every_sense(
    drawn: dict[str, np.ndarray], censoring: CensoringCurve
) -> None:
    month = 24.0

    def ask(curve: CalibrationCurve) -> CalibrationStep:
        steps = [
            CalibrationStep.of(
                p["months"],
                p["event"],
                -np.expm1(-p["rate"] * month),
                curve=curve,
                horizon_months=month,
                censoring=censoring,
            )
            for p in parts(drawn)
        ]
        return merge_all(steps)

    fitted = fit_calibration(ask, CalibrationCurve.ideal("linear"))
    error = fitted.standard_errors
    assert abs(fitted.curve.coefficients[0]) < 3 * error[0]
    assert abs(fitted.curve.coefficients[1] - 1) < 3 * error[1]
    risks = [-np.expm1(-p["rate"] * month) for p in parts(drawn)]
    errors = merge_all([CalibrationErrors.of(risk, fitted.curve) for risk in risks])
    assert errors.ici < 0.02 and errors.quantile(0.9) < 0.03
    own = [DCalibration.of(np.exp(-p["rate"] * p["months"]), p["event"]) for p in parts(drawn)]
    assert merge_all(own).chi_square()[0] < 21.7  # 99 % point of chi-square with 9 degrees


def test_net_benefit_meets_the_oracle(drawn: dict[str, np.ndarray]) -> None:
    tables = [
        band_table(
            p["months"],
            p["event"],
            -np.expm1(-p["rate"] * TAU),
            thresholds=(THRESHOLD,),
            grid_months=GRID,
        )
        for p in parts(drawn)
    ]
    found = decision_curve(merge_all(tables), (THRESHOLD,))
    risk = -np.expm1(-drawn["rate"] * TAU)
    high, odds = risk >= THRESHOLD, THRESHOLD / (1 - THRESHOLD)
    oracle = (risk * high).mean() - ((1 - risk) * high).mean() * odds
    # Standard error about (1 + odds) P sqrt(F (1 - F) / 2000) = .013.
    assert found.model[0] == pytest.approx(oracle, abs=0.03)
    assert found.treat_all[0] == pytest.approx(risk.mean() - (1 - risk.mean()) * odds, abs=0.04)
    assert found.model[0] > max(found.treat_all[0], 0)
