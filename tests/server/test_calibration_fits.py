"""Several curves in the same rounds are each the curve that would be fitted alone."""

import numpy as np
import pytest

from protocol.evaluation import AskedCurve
from protocol.stats import merge_all
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_fit import fit_calibration
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from server.calibration import Answers, calibration_starts, fit_together

GRID = (0.0, 12.0, 24.0)
CENSORING = CensoringCurve(GRID, (1.0, 0.9, 0.7))
KNOTS = {"12": (-2.0, -1.0, 0.0), "24": ()}
Patients = tuple[np.ndarray, np.ndarray, np.ndarray]


def hospital(seed: int, number: int = 150) -> Patients:
    rng = np.random.default_rng(seed)
    eta = rng.normal(0, 0.8, number)
    months, end = rng.exponential(30 * np.exp(-eta)), rng.uniform(6, 40, number)
    risk = -np.expm1(-0.02 * np.exp(0.7 * eta) * 12)
    return np.minimum(months, end), (months <= end).astype(float), risk


ROLES: dict[str, list[Patients]] = {
    "train": [hospital(1), hospital(2)],
    "external": [hospital(3, 90), hospital(4, 60), hospital(5)],
}


def step(patients: Patients, curve: CalibrationCurve, horizon: float) -> CalibrationStep:
    months, event, risk = patients
    return CalibrationStep.of(
        months, event, risk, curve=curve, horizon_months=horizon, censoring=CENSORING
    )


def ask(asked: list[AskedCurve]) -> Answers:
    answers: Answers = {}
    for role, hospitals in ROLES.items():
        own = [each for each in asked if each.role == role]
        answers[role] = [
            [step(patients, each.curve, each.horizon_months).to_dict() for each in own]
            for patients in hospitals
        ]
    return answers


def test_each_fit_is_the_one_alone() -> None:
    starts = calibration_starts(("train", "external"), (12.0, 24.0), KNOTS)
    assert len(starts) == 10  # no spline without knots
    calls = []

    def counted(asked: list[AskedCurve]) -> Answers:
        calls.append(len(asked))
        return ask(asked)

    fits = fit_together(counted, starts)
    assert list(fits) == list(starts)
    assert calls[0] == 10 and calls == sorted(calls, reverse=True)
    rounds = []
    for (role, horizon, _), start in starts.items():
        alone = fit_calibration(
            lambda curve, r=role, h=horizon: merge_all([step(p, curve, h) for p in ROLES[r]]), start
        )
        found = fits[role, horizon, start.form]
        assert found.result.coefficients == pytest.approx(alone.curve.coefficients, abs=1e-12)
        assert found.result.patients == sum(len(p[0]) for p in ROLES[role])
        assert found.asked is not None and found.asked.curve.form == start.form
        rounds.append(alone.rounds)
    assert len(calls) == max(rounds)


def test_a_hospital_that_leaves_ends_the_fits_that_are_not_done() -> None:
    starts = calibration_starts(("train",), (12.0,), {})
    answers = iter([ask, ask, lambda asked: None])
    fits = fit_together(lambda asked: next(answers)(asked), starts)
    assert all(fit.asked is None for fit in fits.values())
    assert "a hospital left during the fit" in fits["train", 12.0, "linear"].result.why


def test_no_case_and_a_short_answer_are_reasons() -> None:
    starts = calibration_starts(("train",), (12.0,), {})
    none = fit_together(lambda asked: {}, starts)
    assert "needs patients with and without the event" in none["train", 12.0, "linear"].result.why
    short = fit_together(lambda asked: {"train": [[]]}, starts)
    assert "answered 0 of 2 calibration curves" in short["train", 12.0, "intercept"].result.why
