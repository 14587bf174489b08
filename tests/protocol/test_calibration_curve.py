"""Calibration slope, spline, ICI and D-calibration from sums equal the pooled fit."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from protocol.errors import PayloadError
from protocol.stats import Histogram, merge_all, monthly_grid
from protocol.stats.calibration_curve import CalibrationCurve, cloglog, spline_knots
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_fit import CalibrationFit, fit_calibration
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
GRID = monthly_grid(60.0)
HORIZON = 24.0
NO_CENSORING = CensoringCurve((0.0, 60.0), (1.0, 1.0))


def predicted(patients) -> np.ndarray:
    return 1 - patients.survival(np.array([HORIZON])).ravel()


def step(patients, curve: CalibrationCurve, g: CensoringCurve) -> CalibrationStep:
    return CalibrationStep.of(
        patients.months,
        patients.event,
        predicted(patients),
        curve=curve,
        horizon_months=HORIZON,
        censoring=g,
    )


def fit(parts, form: str, g: CensoringCurve, knots=()) -> CalibrationFit:
    return fit_calibration(
        lambda curve: merge_all([step(part, curve, g) for part in parts]),
        CalibrationCurve.ideal(form, knots),
    )


def pooled_loss(beta: np.ndarray, whole, curve: CalibrationCurve, g: CensoringCurve) -> float:
    """Weighted binomial deviance written from its definition, patient by patient."""
    columns, offset = curve.design(predicted(whole))
    loss = 0.0
    for months, event, row, shift in zip(whole.months, whole.event, columns, offset, strict=True):
        chance = 1 - np.exp(-np.exp(row @ beta + shift))
        if event and months <= HORIZON:
            loss -= np.log(chance) / float(g.at(months))
        elif months > HORIZON:
            loss -= np.log(1 - chance) / float(g.at(HORIZON))
    return float(loss)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("form", ["intercept", "linear"])
def test_the_fit_is_the_maximum_of_the_pooled_likelihood(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    whole = ex.cohort(int(rng.integers(60, 120)), rng, whole_months=bool(seed % 2))
    g = ex.censoring(whole, GRID)
    found = fit(ex.hospitals(whole, 3, rng), form, g)
    best = np.asarray(found.curve.coefficients)
    # The derivative of the loss as written above, by central differences, is 0 at the fit, and
    # its second derivative is the information.
    here = pooled_loss(best, whole, found.curve, g)
    assert -here == pytest.approx(found.total.log_likelihood, rel=1e-12)
    h = 1e-4
    for index in range(len(best)):
        move = h * np.eye(len(best))[index]
        up = pooled_loss(best + move, whole, found.curve, g)
        down = pooled_loss(best - move, whole, found.curve, g)
        curvature = (up - 2 * here + down) / h**2
        assert abs(up - down) / (2 * h) < 1e-5
        assert curvature == pytest.approx(found.total.information[index, index], rel=1e-4)
    assert found.rounds <= 10


def test_equals_an_independent_optimiser_with_a_spline() -> None:
    rng = np.random.default_rng(1)
    whole = ex.cohort(110, rng)
    g = ex.censoring(whole, GRID)
    parts = ex.hospitals(whole, 4, rng)
    scores = merge_all([Histogram.of(predicted(part), num_bins=1000) for part in parts])
    found = fit(parts, "spline", g, spline_knots(scores, 4))
    assert len(found.curve.coefficients) == 4
    start = np.array([0.0, 1, 0, 0])
    other = minimize(
        pooled_loss,
        start,
        (whole, found.curve, g),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 600},
    )
    assert -found.total.log_likelihood <= other.fun + 1e-9
    np.testing.assert_allclose(found.curve.coefficients, other.x, atol=1e-4)
    again = fit([whole], "spline", g, found.curve.knots)
    np.testing.assert_allclose(found.curve.coefficients, again.curve.coefficients, atol=1e-9)


def test_one_group_by_hand() -> None:
    # Everyone is predicted .5; 3 of 4 have the event: the intercept moves log(log 2) to
    # log(log 4), so it is log 2.
    sums = fit_calibration(
        lambda curve: CalibrationStep.of(
            [1, 2, 3, 50], [1, 1, 1, 0], [0.5] * 4, curve=curve, horizon_months=24.0,
            censoring=NO_CENSORING,
        ),
        CalibrationCurve.ideal("intercept"),
    )  # fmt: skip
    assert sums.curve.coefficients[0] == pytest.approx(np.log(2), abs=1e-9)
    assert sums.curve.observed([0.5])[0] == pytest.approx(0.75, abs=1e-9)
    # Robust variance of the cloglog of a share q = 3/4: q / (n (1 - q) log(1 - q)^2).
    expected = 0.75 / (4 * 0.25 * np.log(0.25) ** 2)
    assert sums.covariance[0, 0] == pytest.approx(expected, rel=1e-9)


def test_equals_a_weighted_binomial_regression_of_statsmodels() -> None:
    # statsmodels 0.15: GLM(y, [1, cloglog p], Binomial(CLogLog), freq_weights = 1 / G).
    g = CensoringCurve((0.0, 5.0, 10.0, 24.0), (1.0, 1.0, 1 / 1.1, 0.8))
    months = [30, 30, 4, 30, 30, 4, 8, 4]
    p = [0.05, 0.1, 0.2, 0.3, 0.45, 0.5, 0.6, 0.8]
    found = fit_calibration(
        lambda curve: CalibrationStep.of(
            months, np.array(months) < 24, p, curve=curve, horizon_months=24.0, censoring=g
        ),
        CalibrationCurve.ideal("linear"),
    )
    assert found.curve.coefficients == pytest.approx((0.69086607, 1.43629137), abs=2e-8)
    assert found.total.log_likelihood == pytest.approx(-4.063981665502649, rel=1e-9)


def test_recovers_a_planted_slope_within_its_interval() -> None:
    # True risk at the horizon: cloglog(P) = .3 + .6 cloglog(p), no matter how many are censored.
    rng = np.random.default_rng(12)
    held, slopes = 0, []
    for _ in range(30):
        p = rng.uniform(0.02, 0.7, 1500)
        rate = np.exp(0.3 + 0.6 * cloglog(p)) / HORIZON
        onset, end = rng.exponential(1 / rate), rng.uniform(6, 90, len(p))
        months, event = np.minimum(onset, end), onset <= end
        whole = ex.Cohort(months, event, p)
        g = ex.censoring(whole, ex.exact_grid(np.append(months, HORIZON)))
        found = fit_calibration(
            lambda curve, m=months, e=event, p=p, g=g: CalibrationStep.of(
                m, e, p, curve=curve, horizon_months=HORIZON, censoring=g
            ),
            CalibrationCurve.ideal("linear"),
        )
        slope, error = found.curve.coefficients[1], found.standard_errors[1]
        held += abs(slope - 0.6) < 1.96 * error
        slopes.append(slope)
    assert np.mean(slopes) == pytest.approx(0.6, abs=0.03)
    assert held >= 25


def test_ideal_curves_are_the_identity() -> None:
    p = np.array([0.01, 0.2, 0.5, 0.97])
    for form, knots in (("intercept", ()), ("linear", ()), ("spline", (-2.0, -1.0, 0.0, 0.5))):
        np.testing.assert_allclose(CalibrationCurve.ideal(form, knots).observed(p), p, atol=1e-12)


def test_a_restricted_cubic_spline_is_linear_beyond_its_knots() -> None:
    curve = CalibrationCurve("spline", (-2.0, -1.0, 0.0), (0.1, 0.5, 0.7))
    for x in (np.linspace(-9, -2, 5), np.linspace(0.0, 2.5, 5)):
        columns, _ = curve.design(1 - np.exp(-np.exp(x)))
        np.testing.assert_allclose(np.diff(columns @ curve.coefficients, 2), 0, atol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(["mixed", "no event", "all events"]))
@settings(max_examples=40, deadline=None)
def test_laws(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    whole = ex.cohort(int(rng.integers(1, 50)), rng, kind=kind)
    g, curve = ex.censoring(whole, GRID), CalibrationCurve.ideal("linear")
    a, b, c = (step(part, curve, g) for part in ex.hospitals(whole, 3, rng))
    assert a + b == b + a
    assert a + CalibrationStep.empty(curve, HORIZON) == a
    assert CalibrationStep.from_dict(json.loads(json.dumps(a.to_dict()))) == a
    one = step(whole, curve, g)
    for total in ((a + b) + c, a + (b + c)):
        np.testing.assert_allclose(total.information, one.information, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(total.gradient, one.gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(total.squared, one.squared, rtol=1e-9, atol=1e-9)
    told = one.suppressed(4)
    enough = min(one.num_cases, one.num_controls) >= 4
    assert (told.num_patients > 0) <= enough
    errors = [CalibrationErrors.of(predicted(p), curve) for p in ex.hospitals(whole, 3, rng)]
    assert merge_all(errors).num_patients == len(whole)
    assert merge_all(errors) + CalibrationErrors.empty() == merge_all(errors)


def test_ici_e50_e90_are_those_of_the_pooled_patients() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        p = rng.uniform(0, 1, int(rng.integers(5, 200)))
        curve = CalibrationCurve(
            "linear", (), (float(rng.normal(0, 0.3)), float(rng.uniform(0.5, 1.5)))
        )
        parts = np.array_split(p, 3)
        total = merge_all([CalibrationErrors.of(part, curve) for part in parts])
        level, slope = curve.coefficients
        fitted = 1 - np.exp(-np.exp(level) * (-np.log1p(-p)) ** slope)
        distance = np.abs(fitted - p)
        assert total.ici == pytest.approx(distance.mean(), abs=1e-9)
        for q in (0.5, 0.9):
            ordered = np.quantile(distance, q, method="inverted_cdf")
            assert total.quantile(q) == pytest.approx(ordered, abs=1.001e-3)
    assert total.suppressed(5).ici == total.ici
    assert np.isnan(CalibrationErrors.empty().ici)


def test_extreme_predictions_stay_finite() -> None:
    p = [0.0, 1.0, 0.5, 1.0, 0.0]
    found = CalibrationStep.of(
        [1, 2, 3, 30, 30], [1, 1, 1, 0, 0], p, curve=CalibrationCurve.ideal("linear"),
        horizon_months=24.0, censoring=NO_CENSORING,
    )  # fmt: skip
    for value in (found.log_likelihood, found.gradient, found.information, found.squared):
        assert np.isfinite(value).all()


def test_a_fit_that_cannot_be_is_refused() -> None:
    whole = ex.cohort(60, np.random.default_rng(3))
    g = ex.censoring(whole, GRID)
    with pytest.raises(PayloadError, match="with and without the event by the horizon"):
        fit([whole.part(whole.months > HORIZON)], "linear", g)
    alike = ex.Cohort(whole.months, whole.event, np.full(60, 0.3))
    with pytest.raises(PayloadError, match="do not vary enough"):
        fit([alike], "linear", g)
    apart = ex.Cohort(
        np.array([1.0, 2, 50, 60]), np.array([1, 1, 0, 0]) == 1, np.array([0.9, 0.8, 0.2, 0.1])
    )
    with pytest.raises(PayloadError, match=r"did not settle in 25 rounds|do not vary enough"):
        fit([apart], "linear", NO_CENSORING)
    with pytest.raises(PayloadError, match="3 to 10 rising knots"):
        CalibrationCurve("spline", (1.0,), (0.0,))
    with pytest.raises(PayloadError, match="has 2 finite coefficients"):
        CalibrationCurve("linear", (), (0.0,))
    with pytest.raises(PayloadError, match="too much alike for a spline"):
        spline_knots(Histogram.of(np.full(50, 0.2), num_bins=10**6))
    with pytest.raises(PayloadError, match="different horizons or curves"):
        curve = CalibrationCurve.ideal("linear")
        CalibrationStep.empty(curve, 12.0) + CalibrationStep.empty(curve, 24.0)


def test_a_curve_travels() -> None:
    curve = CalibrationCurve("spline", (-2.0, -1.0, 0.0), (0.1, 0.5, 0.7))
    sent = json.loads(json.dumps(curve.to_dict()))
    assert CalibrationCurve.from_dict(sent) == curve
    for change, sentence in (
        ({"knots": None}, "CalibrationCurve.knots must be a list of finite numbers"),
        ({"form": "cubic"}, "is one of"),
        ({"form": ["linear"]}, "is one of"),
        ({"patients": []}, "has 1 unknown key"),
    ):
        with pytest.raises(PayloadError, match=sentence):
            CalibrationCurve.from_dict({**sent, **change})


def test_what_leaves_is_sums() -> None:
    whole = ex.cohort(80, np.random.default_rng(2), whole_months=False)
    sent = step(whole, CalibrationCurve.ideal("linear"), ex.censoring(whole, GRID)).to_dict()
    own = {*whole.months, *whole.risk, *predicted(whole)}
    matrix = [value for name in ("information", "squared") for row in sent[name] for value in row]
    assert not own & {sent["log_likelihood"], *sent["gradient"], *matrix}


def test_d_calibration_by_hand() -> None:
    # Four bins. Event at .9: bin 3. Event at .25: bin 0 (bins are open below). Censored at .6:
    # .25 / .6 in bins 0 and 1, .1 / .6 in bin 2. Censored at 0: bin 0.
    found = DCalibration.of([0.9, 0.25, 0.6, 0.0], [1, 1, 0, 0], num_bins=4)
    np.testing.assert_allclose(found.mass, [2 + 25 / 60, 25 / 60, 10 / 60, 1], rtol=1e-14)
    assert found.patients.tolist() == [2, 0, 1, 1]
    chi, df = found.chi_square()
    expected = (17 / 12) ** 2 + (7 / 12) ** 2 + (10 / 12) ** 2
    assert (chi, df) == (pytest.approx(expected, rel=1e-14), 3)


def test_d_calibration_equals_the_loop_over_patients() -> None:
    rng = np.random.default_rng(9)
    for _ in range(200):
        number, bins = int(rng.integers(1, 40)), int(rng.integers(2, 12))
        chance, event = (
            rng.choice([0, 0.1, 0.5, 1.0, *rng.random(5)], number),
            rng.random(number) < 0.5,
        )
        mass = np.zeros(bins)
        for c, e in zip(chance, event, strict=True):
            k = next(b for b in range(bins) if c <= (b + 1) / bins + 1e-15)
            if e or c == 0:
                mass[k] += 1
            else:
                mass[k] += (c - k / bins) / c
                mass[:k] += 1 / (bins * c)
        cut = int(rng.integers(0, number + 1))
        first = DCalibration.of(chance[:cut], event[:cut], bins)
        total = first + DCalibration.of(chance[cut:], event[cut:], bins)
        np.testing.assert_allclose(total.mass, mass, atol=1e-9)
        assert DCalibration.from_dict(json.loads(json.dumps(total.to_dict()))) == total
        assert total + DCalibration.empty(bins) == total


def test_right_curves_are_d_calibrated_and_wrong_ones_are_not() -> None:
    rng = np.random.default_rng(4)
    values = {1.0: [], 1.6: []}
    for _ in range(100):
        rate = rng.uniform(0.01, 0.05, 600)
        onset, end = rng.exponential(1 / rate), rng.exponential(1 / 0.02, 600)
        months, event = np.minimum(onset, end), onset <= end
        for factor, row in values.items():
            row.append(DCalibration.of(np.exp(-factor * rate * months), event).chi_square()[0])
    # Censored mass is spread, so the statistic is below the chi-square of 9 degrees of freedom.
    assert np.mean(np.array(values[1.0]) > 16.92) <= 0.05
    assert np.mean(np.array(values[1.6]) > 16.92) >= 0.95


def test_d_calibration_is_withheld_or_refused() -> None:
    few = DCalibration.of([0.05, 0.15, 0.16], [1, 1, 0])
    assert few.suppressed(2).withheld == 1 and few.suppressed(2).patients.sum() == 0
    assert few.suppressed(1) is few
    assert np.isnan(DCalibration.empty().chi_square()[0])
    with pytest.raises(PayloadError, match="unlike bins"):
        DCalibration.empty(10) + DCalibration.empty(5)
    with pytest.raises(PayloadError, match=r"outside \[0, 1\]"):
        DCalibration.of([1.1], [1])
    with pytest.raises(PayloadError, match="do not add up"):
        DCalibration.from_dict({"patients": [1, 0], "mass": [0.0, 3.0], "withheld": 0})
