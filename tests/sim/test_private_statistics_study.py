"""Whole studies with hospitals that answer with noise: they end, and with a report."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from client.policy import site_ledger
from protocol import audit
from protocol.config import Study
from protocol.stats.table_concordance import harrell_c
from server.results import load_results


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 80, "h1": 80, "h2": 66, "h3": 66}
# The external two have the same patients; one of them adds noise.
SEEDS = {"h0": 0, "h1": 1, "h2": 3, "h3": 3}
COLUMNS = ["age", "gene_12"]
DECLINED = {"evaluate.regression", "evaluate.weighted", "evaluate.subgroups"}


def study(**changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "noised",
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2", "h3"]},
            "stages": ["survey", "regression", "prognosis", "validate"],
            "holdout": {"fold": 0, "num_folds": 3},
            "regression": {"covariates": COLUMNS, "form": "stratified"},
            "prognosis": {
                "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
                "covariates": COLUMNS,
                "num_intervals": 4,
                "max_horizon_months": 48,
                "rounds": 1,
                "training": {"learning_rate": 0.05, "epochs": 6},
            },
            "validate": {"bootstrap": 5, "thresholds": [0.3]},
            "rounds": {"join_s": 5},
            "ranges": {"gene_12": [-3, 3]},
            **changes,
        }
    )


def write_policy(site: Path, noise: float, study_epsilon: float = 1e30) -> None:
    values = {
        "noise_multiplier": 1.0,
        "clip_norm": 1.0,
        "sampling_rate": 0.1,
        "steps_per_round": 5,
        "max_rounds": 5,
        "delta": 1e-3,
        "study_epsilon": study_epsilon,
        "lifetime_epsilon": 1e30,
        "statistics_noise": noise,
    }
    (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": values}))


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    (tmp_path / "sites").mkdir()
    return [
        kit.write_hospital(tmp_path / "sites", name, kit.cohort(SEEDS[name], size), min_cell=5)
        for name, size in SIZES.items()
    ]


def said(grid: Any, site: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for who, topic, text in grid.sent:
        if who == site:
            found.setdefault(topic, []).append(text)
    return found


def test_an_external_hospital_that_adds_noise_is_judged_on_what_it_answers(
    sites: list[Path], tmp_path: Path
) -> None:
    write_policy(sites[3], 1e-4)
    grid = kit.RecordingGrid(sites, models=True)
    results = kit.run(study(), grid, tmp_path / "run")
    told = said(grid, "h3")
    assert all("code=710" in text for topic in DECLINED for text in told[topic])
    # Nobody else is asked less for it: the curves of the others are fitted.
    arm = results.arms["federated"]
    assert arm.evaluation["external"].calibration and arm.sites["h2"].pairs is not None
    judged = arm.sites["h3"]
    assert judged.pairs is None and judged.evaluation is not None
    table = judged.evaluation.score_table
    assert table is not None and table.num_patients == 65  # in multiples of 5
    assert judged.life_table is not None and judged.life_table.num_patients.sum() == 65
    assert harrell_c(table).value == pytest.approx(arm.sites["h2"].pairs.c_index, abs=0.08)
    entries = site_ledger(sites[3]).entries()
    assert [entry.purpose for entry in entries] == ["survey", "evaluate.prognosis"]
    row = {hospital.name: hospital for hospital in results.hospitals}["h3"]
    assert row.patients == 66 and row.noise_sd is not None and row.refused == {}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "h3 answers with noise, for its patients&#39; privacy" in page
    assert "h3 (external), from a noised table" in page
    assert load_results(tmp_path / "run" / "results.json") == results


def test_a_survey_of_hospitals_that_all_add_noise_agrees_what_the_others_need(
    sites: list[Path], tmp_path: Path
) -> None:
    for site in sites:
        write_policy(site, 1.0)
    chosen = study(stages=["survey", "regression"])
    grids = [kit.RecordingGrid(sites) for _ in range(2)]
    first, second = (kit.judge(chosen, grid, tmp_path) for grid in grids)
    # Asked again, all say the same, and none is charged for it.
    assert first == second
    assert all(len(site_ledger(site).entries()) == 1 for site in sites)
    # A Cox regression has no noised form: the study has none, and says why.
    assert first.regression is None
    assert all("code=710" in text for text in said(grids[0], "h0")["query.cox"])
    outcomes = [line["detail"] for line in audit.read(tmp_path / "audit.jsonl")]
    assert {"outcome": "E710"} in outcomes
    moments = first.hospitals[2].covariates
    assert moments is not None and moments.names == ("age", "gene_12")
    assert abs(moments.mean[0] - 60) < 25 and not np.isnan(moments.sd).any()


def test_what_the_budget_no_longer_pays_is_declined_and_the_study_ends(
    sites: list[Path], tmp_path: Path
) -> None:
    write_policy(sites[3], 3.0, study_epsilon=1.0)
    grid = kit.RecordingGrid(sites, models=True)
    results = kit.judge(study(stages=["survey", "prognosis", "validate"]), grid, tmp_path)
    assert "declined: budget" in said(grid, "h3")["evaluate.prognosis"][0]
    assert "h3" not in results.arms["federated"].sites
    assert len(site_ledger(sites[3]).entries()) == 1


def test_a_covariate_without_a_public_range_stops_the_study_at_its_first_question(
    sites: list[Path], tmp_path: Path
) -> None:
    write_policy(sites[0], 3.0)
    with pytest.raises(Exception, match=r"h0: E710 'gene_12' has no public range"):
        kit.judge(study(ranges={}), kit.RecordingGrid(sites), tmp_path)
    assert not site_ledger(sites[0]).entries()
