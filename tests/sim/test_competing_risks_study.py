"""Competing risks over hospitals: two causes in the tables, each judged by itself."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from lifelines import CoxPHFitter

from client.causes import kept_at_risk
from client.hospital import open_hospital
from client.survey import survey
from protocol.config import Study
from protocol.errors import DataError, PayloadError, QuorumError
from protocol.payload import Question
from protocol.stats import PairCounts
from server.report.write import render_report


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
NAMES = ("sudden death", "other death")


def cohort(seed: int, size: int) -> dict[str, np.ndarray]:
    """Return patients whose gene brings the first cause forward, and whose age the second."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(60, 10, size), rng.normal(0, 1, size)])
    first = rng.exponential(60 * np.exp(-1.2 * x[:, 1]))
    second = rng.exponential(60 * np.exp(-0.1 * (x[:, 0] - 60)))
    end = rng.uniform(12, 72, size)
    months = np.minimum(np.minimum(first, second), end)
    event = np.where(months == end, 0, np.where(months == first, 1, 2))
    return {"months": months + 0.01, "event": event, "x": x, "start": months * 0}


@pytest.fixture(scope="module")
def cohorts() -> dict[str, dict[str, np.ndarray]]:
    return {"h0": cohort(1, 110), "h1": cohort(2, 110), "h2": cohort(3, 120)}


@pytest.fixture(scope="module")
def sites(
    cohorts: dict[str, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    return [
        # The external hospital withholds nothing, so that its curve is to be had exactly.
        kit.write_hospital(folder, name, part, causes=2, min_cell=1 if name == "h2" else 5)
        for name, part in cohorts.items()
    ]


def study(**changes: Any) -> Study:
    section = {
        "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
        "head": "competing_risks",
        "causes": list(NAMES),
        "covariates": ["age", "gene_12"],
        "num_intervals": 5,
        "rounds": 4,
        "training": {"learning_rate": 0.05, "epochs": 8},
    }
    return Study.model_validate(
        {
            "name": "causes",
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2"]},
            "stages": ["survey", "regression", "prognosis", "validate"],
            "regression": {"covariates": ["age", "gene_12"], "patients": "training"},
            "prognosis": {**section, **changes.pop("prognosis", {})},
            "validate": {"bootstrap": 2},
            "rounds": {"join_s": 5},
            **changes,
        }
    )


@pytest.mark.filterwarnings("ignore")
def test_each_cause_is_trained_and_judged(
    sites: list[Path], cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    chosen = study(validate={"bootstrap": 0})
    results = kit.judge(chosen, kit.RecordingGrid(sites, models=True), tmp_path)
    part = cohorts["h2"]
    sudden, other = results.causes["external"]
    assert (sudden.name, other.name) == NAMES
    assert (sudden.patients, sudden.events) == (
        120,
        int(((part["event"] == 1) & (part["months"] <= sudden.seen[-1].months)).sum()),
    )
    # Ranked by its own covariate, far better than the other cause's would rank it.
    assert sudden.pairs.c_index > 0.7 and other.pairs.c_index > 0.65
    grid = np.array([0.0, *(seen.months for seen in sudden.seen)])
    rounded = grid[np.minimum(np.searchsorted(grid, part["months"]), len(grid) - 1)]
    happened = np.where(part["months"] <= grid[-1], part["event"], 0)
    for number, cause in enumerate((sudden, other), start=1):
        # Aalen-Johansen by hand on the grid's own times, censored patients leaving last.
        alive, incidence = 1.0, 0.0
        for seen in cause.seen:
            at_risk = (rounded >= seen.months).sum()
            here = rounded == seen.months
            incidence += alive * (here & (happened == number)).sum() / at_risk
            alive *= 1 - (here & (happened > 0)).sum() / at_risk
            assert seen.observed == pytest.approx(incidence, abs=1e-12)
            assert seen.predicted == pytest.approx(incidence, abs=0.15)
    # The network's curve is of any event, so it is judged on any event.
    table = results.arms["federated"].sites["h2"].life_table
    within = part["months"] <= grid[-1]
    assert table is not None and table.events.sum() == ((part["event"] > 0) & within).sum()
    assert not results.arms["federated"].sites["h2"].evaluation.moves  # type: ignore[union-attr]
    assert results.hospitals[2].competing_events == int((part["event"] == 2).sum())
    page = render_report(results)
    assert "Competing risks, by cause" in page and "sudden death" in page


@pytest.mark.filterwarnings("ignore")
def test_the_regression_is_of_the_first_cause(
    sites: list[Path], cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    import pandas as pd

    grid = kit.RecordingGrid(sites)
    chosen = kit.regression_study(list(cohorts))
    results = kit.run(chosen, grid, tmp_path)
    assert results.regression is not None
    parts = [
        pd.DataFrame(part["x"], columns=["age", "gene_12"]).assign(
            months=part["months"], event=part["event"] == 1, site=name
        )
        for name, part in cohorts.items()
    ]
    reference = CoxPHFitter().fit(pd.concat(parts), "months", "event", strata=["site"])
    beta = [row.beta for row in results.regression.rows]
    np.testing.assert_allclose(beta, reference.params_, atol=1e-5)


def test_wolbers_pairs_by_hand() -> None:
    months, cause = np.array([5.0, 8.0, 10.0, 12.0]), np.array([1, 2, 0, 1])
    kept, event = kept_at_risk(months, cause, 1, 24.0)
    # The second had another death: still without this one at the end, so compared with both.
    assert kept.tolist() == [5.0, 25.0, 10.0, 12.0] and event.tolist() == [1, 0, 0, 1]
    pairs = PairCounts.of(kept, event, np.array([0.4, 0.5, 0.1, 0.3]), tau_months=24.0)
    # Pairs: (1,2) wrong, (1,3) right, (1,4) right, (4,2) wrong.
    assert pairs.c_index == pytest.approx(0.5)


def test_a_table_of_one_cause_is_refused_where_two_are_asked(
    sites: list[Path], tmp_path: Path
) -> None:
    plain = cohort(5, 80)
    plain["event"] = (plain["event"] == 1).astype(int)
    other = kit.write_hospital(tmp_path, "h1", plain, min_cell=5)
    grid = kit.RecordingGrid([sites[0], other, sites[2]], models=True)
    chosen = study(stages=["survey", "prognosis"])
    with pytest.raises(QuorumError, match="h1 tells 1 kind of event apart where the study has 2"):
        kit.judge(chosen, grid, tmp_path)


def test_a_second_cause_needs_to_be_declared(tmp_path: Path) -> None:
    site = kit.write_hospital(tmp_path, "h0", cohort(5, 40))
    with pytest.raises(DataError, match=r"the event is neither 0 nor 1; .* set outcomes\.causes"):
        open_hospital(site, study())
    third = cohort(5, 40)
    third["event"] = np.full(40, 3)
    (tmp_path / "more").mkdir()
    site = kit.write_hospital(tmp_path / "more", "h0", third, causes=2)
    with pytest.raises(DataError, match="line 2: the event is no whole number from 0 to 2"):
        open_hospital(site, study())


def test_the_survey_counts_what_the_network_predicts(sites: list[Path]) -> None:
    chosen = study()
    hospital = open_hospital(sites[2], chosen)
    told = survey(hospital, Question(chosen, "survey")).document
    either = survey(hospital, Question(study(prognosis={"head": "mtlr"}), "survey")).document
    assert np.sum(told["life_table"]["events"]) > np.sum(either["life_table"]["events"])
    assert told["events"] == either["events"] and told["competing_events"] > 0


def test_what_has_no_causes_is_not_asked_about_them(sites: list[Path]) -> None:
    from client.causes import judge

    chosen = study(prognosis={"head": "mtlr"})
    question = Question(chosen, "causes", {"cuts_months": [12.0]})
    with pytest.raises(PayloadError, match="has no competing risks to judge"):
        judge(open_hospital(sites[0], chosen), question)


@pytest.mark.parametrize("names", [["a", "a"], ["a", "censored"], ["a"], ["<b>", "c"]])
def test_causes_have_two_plain_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="causes"):
        study(prognosis={"causes": names})
