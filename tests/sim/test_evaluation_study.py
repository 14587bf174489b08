"""An evaluation through the real apps: the pooled numbers, and nothing of a patient on the wire."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from client.hospital import open_hospital
from client.prediction import network_outputs, predicted_risk, predicted_survival
from client.survey import validation_patients
from protocol.config import Study
from protocol.errors import ConfigError
from protocol.payload import Question
from protocol.stats import PairCounts, merge_all
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_fit import fit_calibration
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.table_concordance import harrell_c
from server.report.write import render_report
from server.results import Results
from shared_models.weights import load


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 150, "h1": 150, "h2": 150, "h3": 130}
TRAIN, EXTERNAL = ["h0", "h1"], ["h2", "h3"]


def study(**validate: Any) -> Study:
    columns = ["age", "gene_12"]
    return Study.model_validate(
        {
            "name": "judged",
            "seed": 3,
            "hospitals": {"train": TRAIN, "external": EXTERNAL},
            "stages": ["survey", "regression", "prognosis", "validate"],
            "holdout": {"fold": 0, "num_folds": 3},
            "regression": {
                "covariates": columns,
                "form": "grid",
                "step_months": 6,
                "horizon_months": 48,
                "max_coarse_months": 48,
            },
            "prognosis": {
                "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
                "covariates": columns,
                "num_intervals": 4,
                "max_horizon_months": 48,
                "rounds": 2,
                "training": {"learning_rate": 0.05, "epochs": 6},
            },
            "validate": {
                "bootstrap": 20,
                "horizons_months": [24, 48],
                "thresholds": [0.3, 0.6],
                **validate,
            },
            "rounds": {"join_s": 5},
        }
    )


@pytest.fixture(scope="module")
def cohorts() -> dict[str, dict[str, np.ndarray]]:
    return {name: kit.cohort(seed, size) for seed, (name, size) in enumerate(SIZES.items())}


class Run:
    """One run: what it found, what was sent, and where it lies."""

    def __init__(self, cohorts: dict[str, Any], folder: Path, min_cell: int, study: Study) -> None:
        self.study, self.folder = study, folder
        self.sites = [
            kit.write_hospital(folder, name, part, min_cell=min_cell)
            for name, part in cohorts.items()
        ]
        self.grid = kit.RecordingGrid(self.sites, models=True)
        self.results: Results = kit.judge(study, self.grid, folder)

    def external(self) -> dict[str, Any]:
        """Return what the external hospitals' patients are and what is said of them."""
        arrays, _ = load(self.folder / "prognosis" / "final.safetensors")
        scales = {  # of the results: what the survey agreed
            name: [float(self.moments.mean[i]), float(self.moments.sd[i])]
            for i, name in enumerate(("age", "gene_12"))
        }
        cuts = [12.0, 24.0, 36.0, 48.0]
        question = Question(
            self.study,
            "x",
            {"scales": scales, "cuts_months": cuts, "horizon_months": cuts[-1]},
            arrays,
        )
        parts: dict[str, list[np.ndarray]] = {k: [] for k in ("months", "event", "risk", "at")}
        for site in self.sites[2:]:
            hospital = open_hospital(site, self.study)
            patients = validation_patients(hospital, self.study)
            outputs = network_outputs(hospital, question, patients)
            parts["months"].append(np.array([p.months for p in patients]))
            parts["event"].append(np.array([p.event for p in patients]))
            parts["risk"].append(predicted_risk(question, outputs))
            parts["at"].append(1 - predicted_survival(question, outputs, [24.0])[:, 0])
        return {name: np.concatenate(part) for name, part in parts.items()}

    @property
    def moments(self) -> Any:
        return merge_all([h.covariates for h in self.results.hospitals if h.name in TRAIN])


@pytest.fixture(scope="module")
def told(cohorts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Hospitals that withhold nothing: the sums are those of the pooled patients."""
    return Run(cohorts, tmp_path_factory.mktemp("told"), 1, study())


@pytest.fixture(scope="module")
def withheld(cohorts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(cohorts, tmp_path_factory.mktemp("withheld"), 5, study())


def test_pairs_across_hospitals_are_those_of_the_pooled_patients(told: Run) -> None:
    pooled, sites = told.external(), told.results.arms["federated"].sites
    table = merge_all([sites[name].evaluation.score_table for name in EXTERNAL])
    found = harrell_c(table)
    exact = PairCounts.of(pooled["months"], pooled["event"], pooled["risk"], tau_months=1e9)
    beyond = pooled["months"] > 48.0
    inside = PairCounts.of(
        np.where(beyond, 1e6, pooled["months"]),
        np.where(beyond, 0, pooled["event"]),
        pooled["risk"],
        tau_months=1e5,
    )
    assert found.low <= inside.c_index <= found.high and found.error_bound < 0.03
    assert exact.num_patients == SIZES["h2"] + SIZES["h3"] == table.num_patients


def test_the_calibration_curve_is_the_pooled_fit(told: Run) -> None:
    pooled, evaluation = told.external(), told.results.arms["federated"].evaluation["external"]
    censoring = CensoringCurve(evaluation.grid_months, evaluation.censoring)

    def ask(curve: CalibrationCurve) -> CalibrationStep:
        return CalibrationStep.of(
            pooled["months"],
            pooled["event"],
            pooled["at"],
            curve=curve,
            horizon_months=24.0,
            censoring=censoring,
        )

    for form in ("intercept", "linear"):
        whole = fit_calibration(ask, CalibrationCurve.ideal(form))
        (found,) = (
            fit for fit in evaluation.calibration if (fit.horizon_months, fit.form) == (24.0, form)
        )
        assert found.coefficients == pytest.approx(whole.curve.coefficients, abs=1e-7)
        assert np.ravel(found.covariance) == pytest.approx(whole.covariance.ravel(), abs=1e-9)
        assert found.patients == len(pooled["months"]) and found.why == ""


def test_every_metric_is_there_and_counts_its_patients(told: Run) -> None:
    for name in EXTERNAL:
        sent = told.results.arms["federated"].sites[name].evaluation
        assert sent is not None and sent.uno is not None and sent.antolini is not None
        assert sent.uno.num_patients == SIZES[name] and 0.6 < sent.uno.value < 0.95
        # With one risk for all intervals curves do not cross, and C_td is the C of the risk.
        assert sent.antolini.value == pytest.approx(
            told.results.arms["federated"].sites[name].pairs.c_index, abs=1e-9
        )
        assert set(sent.auc) == set(sent.calibration_errors) == {"24", "48"}
        assert sent.brier is not None and (sent.brier.scores < 0.35).all()
        assert sent.moves is not None and sent.bands is not None
        assert sent.moves.num_patients.sum() == SIZES[name]
        assert sent.d_calibration is not None
        assert sent.d_calibration.patients.sum() == SIZES[name]


def test_no_model_ranks_better_than_the_true_risk(told: Run, cohorts: dict[str, Any]) -> None:
    for name in EXTERNAL:
        part = cohorts[name]
        truth = PairCounts.of(
            part["months"], part["event"], part["x"] @ kit.EFFECT, tau_months=48.0
        )
        found = told.results.arms["federated"].sites[name].pairs
        assert found is not None
        assert found.c_index < truth.c_index + 2 * found.standard_error


def test_the_distance_to_the_curve_is_that_of_the_pooled_patients(told: Run) -> None:
    pooled, arm = told.external(), told.results.arms["federated"]
    found = merge_all([arm.sites[n].evaluation.calibration_errors["24"] for n in EXTERNAL])
    fits = {f.form: f for f in arm.evaluation["external"].calibration if f.horizon_months == 24.0}
    best = fits["spline"] if fits["spline"].coefficients else fits["linear"]
    curve = CalibrationCurve(best.form, best.knots, best.coefficients)
    distance = np.abs(curve.observed(pooled["at"]) - pooled["at"])
    assert found.ici == pytest.approx(distance.mean(), abs=1e-9)
    assert found.quantile(0.9) == pytest.approx(np.quantile(distance, 0.9), abs=0.01)


def test_two_passes_and_the_rounds_of_the_curves(told: Run) -> None:
    topics = [topic for site, topic, _ in told.grid.sent if site == "h2"]
    judged = [topic for topic in topics if topic.startswith("evaluate.")]
    assert judged[:3] == ["evaluate.regression", "evaluate.prognosis", "evaluate.weighted"]
    rest = [topic for topic in judged[3:] if topic != "evaluate.subgroups"]
    assert set(rest) == {"evaluate.calibration"} and len(rest) <= 10


def test_no_time_score_or_covariate_of_a_patient_is_sent(
    withheld: Run, cohorts: dict[str, Any]
) -> None:
    pooled = withheld.external()
    numbers = np.concatenate(
        [withheld.grid.numbers("evaluate."), withheld.grid.numbers("query.scores")]
    )
    assert len(numbers) > 1000
    everyone = [c[key].ravel() for c in cohorts.values() for key in ("months", "x")]
    log_risk = np.log(-np.log1p(-pooled["risk"]))
    private = np.concatenate([*everyone, pooled["risk"], pooled["at"], log_risk])
    sent = np.unique(np.concatenate([numbers, np.abs(np.diff(numbers))]))
    nearest = np.clip(np.searchsorted(sent, private), 1, len(sent) - 1)
    distance = np.minimum(abs(sent[nearest] - private), abs(sent[nearest - 1] - private))
    assert (distance > 1e-9 * np.maximum(1, abs(private))).all()
    text = "".join(text for _, topic, text in withheld.grid.sent if "train" not in topic)
    assert "P1" not in text and "outcomes.csv" not in text
    for value in np.concatenate(everyone):
        assert repr(float(value)) not in text


def test_no_cell_of_few_patients_is_sent(withheld: Run) -> None:
    for site in withheld.results.arms["federated"].sites.values():
        sent = site.evaluation
        assert sent is not None and sent.score_table is not None and sent.brier is not None
        boxes = sent.score_table.boxes.reshape(-1, 6)
        assert len(boxes) and (boxes[:, 5] >= 5).all()
        for counts in (sent.brier.cases, sent.brier.controls):
            assert not ((counts > 0) & (counts < 5)).any()
        for pairs in (sent.uno, sent.antolini, *sent.auc.values()):
            assert pairs is not None and not 0 < pairs.num_events < 5


def test_a_small_hospital_answers_nothing(cohorts: dict[str, Any], tmp_path: Path) -> None:
    part = {name: values[:4] for name, values in cohorts["h3"].items()}
    run = Run({**cohorts, "h3": part}, tmp_path, 5, study())
    assert run.results.arms["federated"].sites["h3"].evaluation is None
    answers = [t for s, topic, t in run.grid.sent if s == "h3" and topic.startswith("evaluate.")]
    # Of subgroups it tells the names, which every hospital has.
    empty = ('"answer":{}', '"age":{},"field_strength_t":{},"sex":{},"vendor":{}')
    assert answers and all(any(part in text for part in empty) for text in answers)
    assert "external" in run.results.arms["federated"].evaluation


def test_a_horizon_beyond_the_grid_is_found_at_the_survey(
    cohorts: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"horizons_months names 240, but .* for 48 months only"):
        Run(cohorts, tmp_path, 5, study(horizons_months=[24, 240]))


def test_the_report_says_what_a_clinician_needs(told: Run, withheld: Run) -> None:
    for run in (told, withheld):
        page = render_report(run.results)
        assert "Discrimination, calibration, overall error" in page
        assert "nan" not in page.replace("nance", "")
        for metric in ("Uno", "Antolini", "Brier", "Calibration slope", "treat all"):
            assert metric in page, metric
