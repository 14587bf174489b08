"""Subgroups through the real apps: the sums of the patients in them, and nothing of small ones."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from client.app import app as client_app
from client.cohort import Patient
from client.hospital import open_hospital
from client.subgroups import subgroups
from privacy.suppression import withheld_groups
from protocol.config import Study
from protocol.stats import PairCounts, merge_all
from server.results import Results, load_results
from sim.engines.contract import SITE_KEY
from sim.grid import LocalGrid


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("subgroup_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 240, "h1": 220, "far": 120, "off": 60}
EXTERNAL = ("far", "off")
HORIZON = 60.0


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    made = []
    for seed, (name, size) in enumerate(SIZES.items()):
        part = kit.cohort(seed, size)
        # Two of a kind below 40 at one hospital; elsewhere enough or nobody.
        part["x"][:, 0] = np.where(np.arange(size) % 3 == 0, 52.5, 66.25) + part["x"][:, 1] / 100
        if name == "off":
            part["x"][:2, 0] = 33.0
        made.append(kit.write_hospital(folder, name, part, min_cell=5))
    return made


def study(**changes: object) -> Study:
    return kit.regression_study(
        ["h0", "h1"],
        EXTERNAL,
        **{
            "stages": ["survey", "regression", "prognosis", "validate"],
            "validate": {"bootstrap": 10},
            "regression": {"patients": "training", "horizon_months": HORIZON},
            "prognosis": {
                "network": {"name": "tabular", "options": {"hidden": []}},
                "covariates": ["age", "gene_12"],
                "num_intervals": 4,
                "rounds": 1,
                "max_horizon_months": 48,
            },
            **changes,
        },
    )


@pytest.fixture(scope="module")
def finished(sites: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("run")
    # The weights of the network are arrays, which the recording grid does not read.
    grid = LocalGrid(client_app, [{SITE_KEY: str(site)} for site in sites])
    return kit.run(study(), grid, folder), folder


def test_a_groups_figure_is_that_of_its_patients_at_every_hospital_that_tells(
    finished: tuple[Results, Path], sites: list[Path]
) -> None:
    results, folder = finished
    assert load_results(folder / "results.json").subgroups == results.subgroups
    beta = {row.name: row.beta for row in results.regression.rows} if results.regression else {}
    rows = {(row.role, row.group): row for row in results.subgroups if row.attribute == "age"}
    tau = float(results.study.horizon_months or 0)
    for role, group in (("train", "60-74"), ("external", "60-74"), ("external", "40-59")):
        told = []
        for site in sites:
            if (site.name in EXTERNAL) != (role == "external"):
                continue
            hospital = open_hospital(site, study())
            people = hospital.patients if role == "external" else hospital.held_out
            parts = {
                name: pairs([p for p, here in zip(people, mask, strict=True) if here], beta, tau)
                for name, mask in subgroups(people)["age"].items()
            }
            counts = {name: (part.num_patients, part.num_events) for name, part in parts.items()}
            if group not in withheld_groups(counts, 5):
                told.append(parts[group])
        total, figure = merge_all(told), rows[role, group].regression
        assert figure is not None
        assert (figure.patients, figure.events) == (total.num_patients, total.num_events)
        assert figure.pairs == total.comparable
        assert figure.c_index == pytest.approx(total.c_index, abs=1e-12)
        assert rows[role, group].hospitals == len(told)
        network = rows[role, group].network
        assert network is not None and network.patients == figure.patients


def pairs(patients: list[Patient], beta: dict[str, float], tau_months: float) -> PairCounts:
    risk = [sum(p.covariates[name] * value for name, value in beta.items()) for p in patients]
    months, event = [p.months for p in patients], [p.event for p in patients]
    return PairCounts.of(months, event, np.round(risk, 12), tau_months=tau_months)


def test_a_small_group_is_told_nowhere_and_cannot_be_subtracted(
    finished: tuple[Results, Path], sites: list[Path]
) -> None:
    results, _ = finished
    assert not any(row.group == "<40" for row in results.subgroups)
    people = open_hospital(sites[3], study()).patients
    masks = subgroups(people)["age"]
    assert masks["<40"].sum() == 2
    # Of "off" only one group of age is told: what is left of its total is not the two alone.
    told = {r.group: r for r in results.subgroups if (r.role, r.attribute) == ("external", "age")}
    far = subgroups(open_hospital(sites[2], study()).patients)["age"]
    assert told["40-59"].regression is not None
    assert told["40-59"].regression.patients == far["40-59"].sum()
    assert told["60-74"].regression is not None
    assert told["60-74"].regression.patients == far["60-74"].sum() + masks["60-74"].sum()


def test_tables_have_no_scanner_and_the_report_does_not_show_one(
    finished: tuple[Results, Path],
) -> None:
    results, folder = finished
    assert {row.group for row in results.subgroups if row.attribute == "vendor"} == {"unknown"}
    page = (folder / "report.html").read_text()
    assert "<h2>Groups of patients</h2>" in page and "60-74" in page
    assert "Scanner vendor" not in page


def test_it_can_be_switched_off(sites: list[Path], tmp_path: Path) -> None:
    grid = kit.RecordingGrid(sites)
    off = study(
        stages=["survey", "regression", "validate"], validate={"bootstrap": 0, "subgroups": False}
    )
    results = kit.run(off, grid, tmp_path)
    assert results.subgroups == ()
    assert "evaluate.subgroups" not in {topic for _, topic, _ in grid.sent}


def test_no_time_score_or_covariate_of_a_patient_is_sent(sites: list[Path], tmp_path: Path) -> None:
    grid = kit.RecordingGrid(sites)
    kit.run(study(stages=["survey", "regression", "validate"]), grid, tmp_path)
    sent = grid.numbers("subgroups")
    assert len(sent) and (sent == np.round(sent)).all()
    people = [p for site in sites for p in open_hospital(site, study()).patients]
    private = np.array([[p.months, *p.covariates.values()] for p in people]).ravel()
    private = private[private != np.round(private)]
    assert not np.isin(private, sent).any()
