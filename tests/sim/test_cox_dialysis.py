"""67 real dialysis centres, 67 clients: the regression is the one of all patients in one table.

The golden values are lifelines' on the pooled file (Efron's ties).
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from lifelines import CoxPHFitter

from protocol.config import Study
from server.regression_results import RegressionResults
from server.results import load_results
from sim.config import SurvivalConfig
from sim.engines.local import run_local
from sim.survival_data import make_survival_hospitals, read_survival_data

NAMES = ("age", "begin", "diabetes", "hypert", "other", "renal")
GOLDEN = {
    "grid": ((0.034388, 0.006506, 0.987546, 0.693365, 0.729817, 0.740076), -13013.4985),
    "stratified": ((0.034521, 0.002675, 1.026904, 0.627356, 0.750337, 0.569405), -6516.1895),
}
DATA = SurvivalConfig(data="dialysis")
Fit = Callable[[str], tuple[RegressionResults, float]]


@pytest.fixture(scope="module")
def fitted(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    folder = tmp_path_factory.mktemp("dialysis")
    sites = make_survival_hospitals(shared_data / "survival", folder / "hospitals", DATA, 1)
    done: dict[str, tuple[RegressionResults, float]] = {}

    def fit(form: str) -> tuple[RegressionResults, float]:
        if form not in done:
            section = {"covariates": NAMES, "patients": "all", "form": form, "horizon_months": 44}
            study = Study.model_validate(
                {
                    "name": "dialysis",
                    "seed": 1,
                    "hospitals": {"train": list(sites)},
                    "stages": ["survey", "regression"],
                    "regression": section,
                }
            )
            run = folder / form
            run.mkdir()
            content = {"study": study.model_dump(mode="json", by_alias=True)}
            (run / "study.yaml").write_text(yaml.safe_dump(content))
            start = time.perf_counter()
            run_local(run / "study.yaml", run, list(sites.values()))
            seconds = time.perf_counter() - start
            results = load_results(run / "results.json").regression
            assert results is not None
            done[form] = results, seconds
        return done[form]

    return fit


@pytest.fixture(scope="module")
def lifelines_fit(shared_data: Path) -> Callable[[str], CoxPHFitter]:
    rows = read_survival_data(shared_data / "survival", DATA, 1)
    frame = pd.DataFrame([dict(row.covariates) for row in rows])
    frame["months"] = [row.months for row in rows]
    frame["event"] = [row.event for row in rows]
    frame["centre"] = [row.hospital for row in rows]

    def fit(form: str) -> CoxPHFitter:
        stratified = form == "stratified"
        columns = frame if stratified else frame.drop(columns="centre")
        strata = ["centre"] if stratified else None
        return CoxPHFitter().fit(
            columns, "months", "event", strata=strata, fit_options={"precision": 1e-10}
        )

    return fit


@pytest.mark.parametrize("form", ["stratified", "grid"])
def test_the_golden_values(fitted: Fit, form: str) -> None:
    found, _ = fitted(form)
    coefficients, log_likelihood = GOLDEN[form]
    assert tuple(row.name for row in found.rows) == NAMES
    assert [row.beta for row in found.rows] == pytest.approx(coefficients, abs=6e-7)
    assert found.log_likelihood == pytest.approx(log_likelihood, abs=6e-5)
    assert (found.patients, found.events, len(found.hospitals)) == (6805, 1603, 67)
    assert found.rounds <= 10 and found.coarse_months == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["stratified", "grid"])
def test_it_is_the_pooled_analysis(
    fitted: Fit, lifelines_fit: Callable[[str], CoxPHFitter], form: str
) -> None:
    found, _ = fitted(form)
    reference = lifelines_fit(form)
    beta = [float(reference.params_[name]) for name in NAMES]
    se = [float(reference.standard_errors_[name]) for name in NAMES]
    np.testing.assert_allclose([row.beta for row in found.rows], beta, rtol=0, atol=1e-6)
    np.testing.assert_allclose([row.se for row in found.rows], se, rtol=0, atol=1e-6)
    assert found.log_likelihood == pytest.approx(float(reference.log_likelihood_), abs=1e-6)
    test = reference.log_likelihood_ratio_test()
    statistic = found.tests["likelihood_ratio"].statistic
    if form == "grid":
        assert statistic == pytest.approx(float(test.test_statistic), abs=1e-5)


@pytest.mark.parametrize("form", ["stratified", "grid"])
def test_it_takes_under_twenty_seconds(fitted: Fit, form: str) -> None:
    assert fitted(form)[1] < 20
