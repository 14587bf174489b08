"""The penalty chosen over hospitals is the one a pooled cross-validation by hand would choose."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from client.cox import SurvivalTable, assign_folds
from client.hospital import open_hospital
from client.regression import answer
from protocol.config import Study
from protocol.errors import PayloadError, TrainingError
from protocol.payload import Question
from protocol.stats import Moments
from protocol.stats.cox import CoxSums
from server.agreement import merge_moments, scales
from server.penalty_choice import penalty_path
from server.report.write import render_report
from server.results import Results


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 90, "h1": 60, "h2": 75}
CANDIDATES = (0.03, 3.0, 0.3, 0.0)
NAMES = ("age", "gene_12")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    return [
        kit.write_hospital(folder, name, kit.cohort(seed, size), min_cell=5)
        for seed, (name, size) in enumerate(SIZES.items())
    ]


def fitted(sites: list[Path], folder: Path, **section: Any) -> tuple[Study, Results]:
    study = kit.regression_study(SIZES, regression=section)
    return study, kit.run(study, kit.RecordingGrid(sites), folder)


def tables(sites: list[Path], study: Study) -> tuple[list[SurvivalTable], np.ndarray]:
    """Each hospital's patients, standardised by the agreed scales; and their deviations."""
    hospitals = [open_hospital(site, study) for site in sites]

    def values(patients: Any) -> np.ndarray:
        return np.array([[p.covariates[name] for name in NAMES] for p in patients])

    moments = [Moments.of(NAMES, values(hospital.training)).suppressed(5) for hospital in hospitals]
    mean, sd = np.array(list(scales(merge_moments(moments)).values())).T
    parts = [
        SurvivalTable.of(
            NAMES,
            [p.months for p in h.patients],
            [p.event for p in h.patients],
            (values(h.patients) - mean) / sd,
        )
        for h in hospitals
    ]
    return parts, sd


def log_likelihood(parts: list[SurvivalTable], beta: np.ndarray) -> float:
    """Cox's partial likelihood, a baseline hazard a hospital, no two times the same."""
    total = 0.0
    for part in parts:
        score = part.x @ beta
        for i in np.flatnonzero(part.event):
            total += score[i] - np.log(np.exp(score[part.months >= part.months[i]]).sum())
    return total


def best(parts: list[SurvivalTable], strength: float) -> np.ndarray:
    n = sum(len(part) for part in parts)

    def objective(beta: np.ndarray) -> float:
        return n * strength * float(beta @ beta) / 2 - log_likelihood(parts, beta)

    return np.asarray(minimize(objective, np.zeros(2), method="BFGS", options={"gtol": 1e-7}).x)


def by_hand(
    parts: list[SurvivalTable], outside: list[list[SurvivalTable]], strength: float
) -> list[float]:
    scores = []
    for kept in outside:
        beta = best(kept, strength)
        scores.append(log_likelihood(parts, beta) - log_likelihood(kept, beta))
    return scores


@pytest.mark.parametrize("fold_by", ["patients", "hospitals"])
def test_the_curve_is_that_of_a_pooled_cross_validation(
    sites: list[Path], tmp_path: Path, fold_by: str
) -> None:
    study, results = fitted(
        sites, tmp_path, penalty=list(CANDIDATES), fold_by=fold_by, folds=3, patients="all"
    )
    found = results.regression
    assert found is not None and found.penalty_curve is not None
    parts, sd = tables(sites, study)
    if fold_by == "hospitals":
        outside = [[t for at, t in enumerate(parts) if at != fold] for fold in range(3)]
    else:
        hospitals = [open_hospital(site, study) for site in sites]
        folds = [
            assign_folds(t, 3, h.private_generator(f"{study.name}/penalty"), min_cell=5)
            for t, h in zip(parts, hospitals, strict=True)
        ]
        assert all(len(np.unique(each)) == 3 for each in folds)
        outside = [
            [t.take(f != fold) for t, f in zip(parts, folds, strict=True)] for fold in range(3)
        ]
    curve = found.penalty_curve
    assert curve.strengths == (3.0, 0.3, 0.03, 0.0) and curve.folds == 3
    scores = np.array([by_hand(parts, outside, strength) for strength in curve.strengths])
    np.testing.assert_allclose(curve.scores, scores.sum(axis=1), atol=1e-5)
    errors = scores.std(axis=1, ddof=1) * np.sqrt(3)
    np.testing.assert_allclose(curve.standard_errors, errors, atol=1e-5)
    chosen = curve.strengths[int(np.argmax(scores.sum(axis=1)))]
    assert found.penalty == chosen < 3.0
    np.testing.assert_allclose(
        [row.beta for row in found.rows], best(parts, chosen) / sd, atol=1e-6
    )


def test_auto_walks_from_nothing_to_nearly_no_penalty_and_says_so(
    sites: list[Path], tmp_path: Path
) -> None:
    _, results = fitted(sites, tmp_path, penalty="auto", l1_ratio=1.0, folds=2)
    found = results.regression
    assert found is not None and found.penalty_curve is not None
    strengths = found.penalty_curve.strengths
    assert len(strengths) == 10 and strengths[-1] == pytest.approx(1e-4 * strengths[0])
    # The strongest lasso leaves no coefficient, so its score is the null model's.
    assert found.penalty_curve.scores[0] == min(found.penalty_curve.scores)
    assert found.penalty in strengths[1:] and all(row.beta for row in found.rows)
    page = (tmp_path / "report.html").read_text()
    assert "Choice of the penalty" in page and page.count("<td>chosen</td>") == 1
    assert "Cross-validation in 2 folds: shares of each hospital's patients" in page.replace(
        "&#39;", "'"
    )


def test_hospitals_are_left_out_of_the_pooled_form(sites: list[Path], tmp_path: Path) -> None:
    grid = {"form": "grid", "step_months": 12, "horizon_months": 60, "max_coarse_months": 60}
    _, results = fitted(sites, tmp_path, penalty="auto", fold_by="hospitals", **grid)
    found = results.regression
    assert found is not None and found.penalty_curve is not None
    assert found.penalty_curve.folds == 3 and found.penalty < found.penalty_curve.strengths[0]
    assert "each one hospital" in render_report(results)


def test_a_hospital_too_small_for_folds_is_left_out_as_a_whole(
    sites: list[Path], tmp_path: Path
) -> None:
    small = kit.write_hospital(tmp_path, "small", kit.cohort(8, 24), min_cell=8)
    names = [*SIZES, "small"]
    section = {"penalty": [0.3, 0.03], "folds": 3}
    grid = kit.RecordingGrid([*sites, small])
    results = kit.run(kit.regression_study(names, regression=section), grid, tmp_path / "run")
    assert results.regression is not None and results.regression.penalty_curve is not None
    texts = [text for site, topic, text in grid.sent if (site, topic) == ("small", "query.cox")]
    counts = {
        int(text.partition('"num_patients":')[2].split(",")[0]) for text in texts if "sums" in text
    }
    assert counts == {0, 24}


def test_a_fold_that_does_not_exist_is_not_answered(sites: list[Path]) -> None:
    study = kit.regression_study(SIZES, regression={"penalty": "auto", "folds": 3})
    hospital = open_hospital(sites[0], study)
    units = {name: [0.0, 1.0] for name in NAMES}
    for fold in (3, -1, 0.5, True):
        cox = {"want": "sums", "beta": [0.0, 0.0], "grid_months": [], "indicators": []}
        agreed = {"scales": units, "cox": {**cox, "fold": fold}}
        with pytest.raises(PayloadError, match="none of 3 folds of a site-stratified regression"):
            answer(hospital, Question(study, "cox", agreed))


def test_where_nobody_is_left_the_choice_says_what_to_do(tmp_path: Path) -> None:
    sites = [kit.write_hospital(tmp_path, "h0", kit.cohort(3, 30), min_cell=10)]
    study = kit.regression_study(["h0"], regression={"penalty": "auto"})
    with pytest.raises(TrainingError, match=r"could not be chosen: .* regression.penalty to one n"):
        kit.run(study, kit.RecordingGrid(sites), tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"penalty": [0.1]}, "penalty lists 1 candidates; give 2 to 30 different ones"),
        ({"penalty": [0.1, 0.1]}, "penalty lists 2 candidates"),
        ({"penalty": "auto", "form": "grid"}, "set fold_by to hospitals"),
        ({"penalty": "auto", "missing": "impute"}, "cannot be chosen for imputed data"),
        ({"penalty": -0.1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_chosen(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kit.regression_study(SIZES, regression=section)


def test_one_hospital_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"set regression\.fold_by to patients"):
        kit.regression_study(["h0"], regression={"penalty": "auto", "fold_by": "hospitals"})


def test_a_path_is_that_of_the_weaker_end() -> None:
    null = CoxSums(
        ("a",), ("efron",), np.zeros(1), 10, 4, 1, 4.0, -5.0, np.array([2.0]), np.array([[3.0]]), 0
    )
    assert penalty_path(null, 1.0)[0] == pytest.approx(0.2)
    assert penalty_path(null, 0.0)[0] == pytest.approx(3.0)
    assert penalty_path(null, 0.5)[0] == pytest.approx(0.4)
    assert penalty_path(null, 0.01)[0] == pytest.approx(3.0 / 0.99)
