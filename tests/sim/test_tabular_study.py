"""Hospitals without images: what they write in site.yaml, what they are in, what they are not."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from client.check import examine
from client.cohort import load_cohort
from client.hospital import open_hospital
from client.measure import measure
from client.site import load_site
from protocol.config import Preprocessing, Study
from protocol.errors import ConfigError, DataError, QuorumError
from protocol.payload import Question
from server.initial import prognosis_weights
from server.results import load_results
from sim.engines.local import run_local
from sim.secret import write_public_secret

NAMES = ("age", "gene_12")


def write_hospital(
    folder: Path,
    name: str,
    rows: Sequence[Sequence[object]],
    header: Sequence[str],
    **settings: object,
) -> Path:
    site = folder / name
    site.mkdir()
    with (site / "outcomes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    outcomes = {"path": "outcomes.csv", "patient": "id", "months": "fu", "event": "ev"}
    outcomes |= {key: key for key in ("start", "held_out") if key in header}
    content = {
        "name": name,
        "outcomes": outcomes,
        "covariates": {
            "age": {"column": "age", "unit": "years"},
            "gene_12": {"column": "G12", "unit": "as is"},
        },
        **settings,
    }
    (site / "site.yaml").write_text(yaml.safe_dump(content))
    write_public_secret(site)
    return site


def cohort_rows(seed: int, number: int, *extra: str) -> list[list[object]]:
    rng = np.random.default_rng(seed)
    age, gene = rng.normal(60, 10, number), rng.normal(0, 1, number)
    time = rng.exponential(40 * np.exp(-0.05 * (age - 60) - 0.8 * gene))
    end = rng.uniform(6, 72, number)
    columns = {
        "start": np.round(np.minimum(time, end) * 0.3, 3),
        "held_out": np.arange(number) % 4 == 0,
    }
    table = []
    for i in range(number):
        row = [f"P{i}", round(min(time[i], end[i]), 3), int(time[i] <= end[i]), age[i], gene[i]]
        table.append([*row, *(float(columns[key][i]) for key in extra if key == "start")])
        table[-1] += [int(columns[key][i]) for key in extra if key == "held_out"]
    return table


HEADER = ("id", "fu", "ev", "age", "G12")


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    return [
        write_hospital(tmp_path, f"h{k}", cohort_rows(k, 80), HEADER, min_cell=5) for k in range(3)
    ]


def study(**changes: object) -> Study:
    section = {
        "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
        "covariates": list(NAMES),
        "num_intervals": 6,
        "rounds": 4,
        "training": {"learning_rate": 0.05, "epochs": 3},
    }
    return Study.model_validate(
        {
            "name": "tab",
            "seed": 3,
            "hospitals": {"train": ["h0", "h1"], "external": ["h2"]},
            "stages": ["survey", "prognosis", "validate"],
            "prognosis": section,
            "validate": {"bootstrap": 20},
            **changes,
        }
    )


def run(study: Study, sites: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"study": study.model_dump(mode="json", by_alias=True)}))
    run_local(file, folder, sites)
    return folder


def test_a_study_of_tables_runs_from_survey_to_report(sites: list[Path], tmp_path: Path) -> None:
    folder = run(study(), sites, tmp_path / "run")
    results = load_results(folder / "results.json")
    external = results.arms["federated"].sites["h2"]
    assert external.pairs is not None and external.pairs.c_index > 0.65
    row = results.hospitals[0]
    assert (row.patients, row.vendors, row.field_strengths_t) == (80, {}, {})
    assert row.units == {"age": "years"}
    assert (folder / "report.html").stat().st_size > 1000


def test_the_network_of_tables_runs_on_them(sites: list[Path], tmp_path: Path) -> None:
    section = {**study().prognosis.model_dump(), "network": {"name": "tabular"}}
    folder = run(study(prognosis=section), sites, tmp_path / "run")
    external = load_results(folder / "results.json").arms["federated"].sites["h2"]
    assert external.pairs is not None and external.pairs.c_index > 0.6


def test_curves_to_the_last_follow_up_are_judged_while_enough_remain(
    sites: list[Path], tmp_path: Path
) -> None:
    section = {
        **study().prognosis.model_dump(),
        "network": {"name": "tabular"},
        "intervals": "events",
        "grid_end": "follow_up",
        "max_horizon_months": 90,
        "rounds": 1,
    }
    folder = run(study(prognosis=section), sites, tmp_path / "run")
    results = load_results(folder / "results.json")
    facts = results.study
    # Few are followed for nearly the 72 months that nobody is followed beyond. The survey spreads
    # small cells, so that it may tell of more.
    assert 90 >= facts.cuts_months[-1] > 66 >= facts.horizon_months > 24
    judged = results.arms["federated"]
    assert judged.sites["h2"].pairs.tau_months == facts.horizon_months
    common = judged.evaluation["external"]
    assert common.grid_months[-1] == facts.horizon_months
    assert common.horizons_months == (facts.horizon_months,)
    whole = judged.sites["h2"].evaluation.brier.horizons_months
    assert len(whole) > 1 and whole[-1] == facts.horizon_months


def test_the_network_of_tables_starts_from_the_surveyed_hazards() -> None:
    section = {**study().prognosis.model_dump(), "network": {"name": "tabular"}}
    hazards, cuts = (0.1, 0.2, 0.0, 0.3, 0.2, 0.1), tuple(6.0 * k for k in range(1, 7))
    chosen = study(prognosis=section)
    bias = [a for a in prognosis_weights(chosen, hazards, cuts).values() if a.shape == (6,)]
    expected = [np.log(h / (1 - h)) if h else bias[-1][2] for h in hazards]
    assert bias[-1] == pytest.approx(expected, abs=1e-6) and bias[-1][2] < -6
    # What the options say stands.
    section["network"] = {"name": "tabular", "options": {"start": [0.5] * 6}}
    own = prognosis_weights(study(prognosis=section), hazards, cuts)
    assert [a for a in own.values() if a.shape == (6,)][-1] == pytest.approx([0.5] * 6)


def test_its_patients_have_no_slice_and_the_survey_no_scanner(sites: list[Path]) -> None:
    cohort = load_cohort(sites[0], Preprocessing())
    assert len(cohort.patients) == 80
    assert not any(patient.has_images for patient in cohort.patients)
    assert math.isnan(cohort.patients[0].spacing_mm[0])
    report = examine(cohort, load_site(sites[0]))
    assert report.trains == ("prognosis",) and report.vendors == {} and report.usable == 80


def test_measuring_where_there_are_no_images_is_refused(sites: list[Path]) -> None:
    hospital = open_hospital(sites[0], study())
    with pytest.raises(DataError, match="h0 has no images to measure; name it in a study without"):
        measure(hospital, Question(study(), "measure", {}, {}))


def test_late_entry_is_read_and_counted_but_not_by_the_network(tmp_path: Path) -> None:
    late = write_hospital(tmp_path, "h0", cohort_rows(0, 60, "start"), (*HEADER, "start"))
    patients = load_cohort(late, Preprocessing()).patients
    assert all(0 <= patient.start_months < patient.months for patient in patients)
    others = [write_hospital(tmp_path, f"h{k}", cohort_rows(k, 60), HEADER) for k in (1, 2)]
    with pytest.raises(QuorumError, match=r"under observation after time zero.*regression stage"):
        run(study(), [late, *others], tmp_path / "run")


def test_a_fixed_split_stands_whatever_the_fold(tmp_path: Path) -> None:
    rows = cohort_rows(0, 60, "held_out")
    site = write_hospital(tmp_path, "h0", rows, (*HEADER, "held_out"))
    for fold in range(3):
        chosen = study(holdout={"fold": fold, "num_folds": 3})
        hospital = open_hospital(site, chosen)
        assert len(hospital.held_out) == sum(row[-1] == 1 for row in rows) == 15
        assert all(patient.aside for patient in hospital.held_out)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (["A", 10, 1, 60, 0.1, 10], "line 2: follow-up starts when it ends or later"),
        (["A", 10, 1, 60, 0.1, ""], "line 2: the start of follow-up is empty"),
        (["A", 10, 1, 60, 0.1, -1], "line 2: the follow-up time is negative"),
        (["A", 10, 1, 60, "high", 0], "line 2: covariate gene_12 holds a value that is not a num"),
    ],
)
def test_a_wrong_row_is_one_sentence(tmp_path: Path, row: list[object], sentence: str) -> None:
    site = write_hospital(tmp_path, "h0", [row], (*HEADER, "start"))
    with pytest.raises(DataError) as caught:
        load_cohort(site, Preprocessing())
    assert sentence in caught.value.sentence


def test_who_is_aside_is_0_or_1(tmp_path: Path) -> None:
    site = write_hospital(tmp_path, "h0", [["A", 10, 1, 60, 0, "no"]], (*HEADER, "held_out"))
    with pytest.raises(DataError, match="line 2: held_out is neither 0 nor 1"):
        load_cohort(site, Preprocessing())


def test_a_covariate_of_the_study_has_no_unit_but_as_is(tmp_path: Path) -> None:
    site = write_hospital(tmp_path, "h0", [["A", 1, 0, 60, 0]], HEADER)
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(text.replace("as is", "log2"))
    with pytest.raises(ConfigError, match=r"'gene_12' is not in the data dictionary .* 'as is'"):
        load_site(site)


def test_a_site_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: h0\n")
    with pytest.raises(ConfigError, match=r"give images, outcomes \(or both\) or members"):
        load_site(tmp_path)


def test_measurements_need_the_measure_stage() -> None:
    with pytest.raises(ValueError, match=r"prognosis\.measurements need the stage measure"):
        study(prognosis={"measurements": ["lv_ef_percent"]})
