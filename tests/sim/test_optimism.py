"""Bootstrap with optimism correction through the real apps."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from lifelines import CoxPHFitter

from client.hospital import open_hospital
from client.optimism import draw_counts
from protocol.config import Study
from protocol.stats import PairCounts, merge_all
from server.design_results import Optimism
from server.results import Results
from sim.secret import write_public_secret


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("optimism_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 60, "h1": 45}
HORIZON = 60.0


def study(replicates: int, **section: object) -> Study:
    return kit.regression_study(
        SIZES,
        validate={
            "bootstrap": 0,
            "designs": ["bootstrap"],
            "optimism_replicates": replicates,
            "subgroups": False,
        },
        regression={"patients": "training", "horizon_months": HORIZON, **section},
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    cohorts = {name: kit.cohort(seed, size) for seed, (name, size) in enumerate(SIZES.items())}
    return [kit.write_hospital(folder, name, part, min_cell=5) for name, part in cohorts.items()]


def found(results: Results) -> Optimism:
    assert results.designs.optimism is not None, results.designs.optimism_reason
    return results.designs.optimism


def pooled_table(sites: list[Path], asked: Study) -> pd.DataFrame:
    rows = []
    for site in sites:
        for patient in open_hospital(site, asked).training:
            rows.append(
                {
                    "months": patient.months,
                    "event": patient.event,
                    "age": patient.covariates["age"],
                    "gene_12": patient.covariates["gene_12"],
                    "site": site.name,
                }
            )
    return pd.DataFrame(rows)


def concordance(frame: pd.DataFrame, beta: pd.Series, times: np.ndarray) -> float:
    """Return C of pairs within hospitals, patient i standing in the table times[i] times."""
    parts = []
    for _, part in frame.assign(times=times).groupby("site", sort=False):
        copies = part.loc[part.index.repeat(part["times"])]
        risk = copies[["age", "gene_12"]].to_numpy() @ beta[["age", "gene_12"]].to_numpy()
        parts.append(
            PairCounts.of(copies["months"], copies["event"], np.round(risk, 12), tau_months=HORIZON)
        )
    return merge_all(parts).c_index


@pytest.mark.filterwarnings("ignore")
def test_the_same_draws_in_one_table_give_the_same_optimism(
    sites: list[Path], tmp_path: Path
) -> None:
    asked = study(4)
    ours = found(kit.run(asked, kit.RecordingGrid(sites), tmp_path))
    frame = pooled_table(sites, asked)
    once = np.ones(len(frame), int)
    fitter = CoxPHFitter()
    fitter.fit(frame, "months", "event", strata=["site"], fit_options={"precision": 1e-11})
    assert ours.apparent == pytest.approx(concordance(frame, fitter.params_, once), abs=1e-12)
    gains = []
    for replicate in range(1, 5):
        times = np.concatenate(
            [
                draw_counts(
                    (frame["event"][frame["site"] == site.name] == 1).to_numpy(),
                    open_hospital(site, asked).private_generator(f"reg/optimism/{replicate}"),
                    min_cell=5,
                )
                for site in sites
            ]
        )
        drawn = frame.assign(times=times)[times > 0]
        refit = CoxPHFitter().fit(
            drawn,
            "months",
            "event",
            strata=["site"],
            weights_col="times",
            fit_options={"precision": 1e-11},
        )
        gains.append(
            concordance(frame, refit.params_, times) - concordance(frame, refit.params_, once)
        )
    assert ours.optimism == pytest.approx(np.mean(gains), abs=1e-12)
    assert ours.corrected == pytest.approx(ours.apparent - np.mean(gains), abs=1e-12)
    assert ours.optimism_se == pytest.approx(np.std(gains, ddof=1) / 2, abs=1e-12)
    assert (ours.replicates, ours.failed, ours.patients) == (4, 0, len(frame))


def test_without_replicates_the_apparent_index_stands(sites: list[Path], tmp_path: Path) -> None:
    ours = found(kit.run(study(0), kit.RecordingGrid(sites), tmp_path))
    assert (ours.optimism, ours.corrected, ours.replicates) == (0.0, ours.apparent, 0)
    assert ours.optimism_se is None and ours.lower is None


def test_finished_replicates_are_not_asked_for_again(sites: list[Path], tmp_path: Path) -> None:
    whole = found(kit.run(study(3), kit.RecordingGrid(sites), tmp_path / "whole"))
    kit.run(study(3), kit.RecordingGrid(sites), tmp_path / "cut")
    before = (tmp_path / "cut" / "results.json").read_bytes()
    grid = kit.RecordingGrid(sites)
    again = kit.run(study(3), grid, tmp_path / "cut")
    assert found(again) == whole and (tmp_path / "cut" / "results.json").read_bytes() == before
    # The fit itself and the model's own pairs: nothing of a replicate.
    asked = [text for site, topic, text in grid.sent if (site, topic) == ("h0", "query.cox")]
    assert again.regression is not None and len(asked) <= again.regression.rounds + 3


def test_a_penalty_and_the_pooled_form_are_corrected_as_well(
    sites: list[Path], tmp_path: Path
) -> None:
    section = {"form": "grid", "step_months": 12, "max_coarse_months": 60, "penalty": 0.01}
    ours = found(kit.run(study(3, **section), kit.RecordingGrid(sites), tmp_path))
    assert ours.replicates == 3 and 0.6 < ours.corrected < 0.9
    assert ours.lower is not None and ours.upper is not None and ours.lower < ours.upper


def test_late_entry_is_told_and_the_study_stands(tmp_path: Path) -> None:
    cohorts = {name: kit.cohort(seed, size) for seed, (name, size) in enumerate(SIZES.items())}
    sites = [kit.write_hospital(tmp_path, name, part, late=True) for name, part in cohorts.items()]
    results = kit.run(study(2), kit.RecordingGrid(sites), tmp_path / "run")
    assert results.regression is not None and results.designs.optimism is None
    assert "came under observation after time zero" in results.designs.optimism_reason
    assert "is not known: " in (tmp_path / "run" / "report.html").read_text()


def test_no_time_or_covariate_of_a_patient_is_sent(sites: list[Path], tmp_path: Path) -> None:
    grid, asked = kit.RecordingGrid(sites), study(2)
    kit.run(asked, grid, tmp_path)
    frame = pooled_table(sites, asked)
    private = frame[["months", "age", "gene_12"]].to_numpy().ravel()
    sent = np.unique(np.round(grid.numbers("query.cox"), 9))
    assert not np.isin(np.round(private, 9), sent).any()
    kinds = {topic for _, topic, _ in grid.sent}
    assert kinds == {"query.hello", "query.survey", "query.cox"}


NOISE = 8


def noise_hospital(folder: Path, name: str, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    site = folder / name
    site.mkdir(parents=True)
    time, end = rng.exponential(40, 60), rng.uniform(6, 72, 60)
    names = [f"x{k}" for k in range(NOISE)]
    with (site / "outcomes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "fu", "ev", *names])
        for i in range(60):
            months, event = min(time[i], end[i]) + 0.01, int(time[i] <= end[i])
            writer.writerow([f"P{i}", months, event, *rng.normal(size=NOISE).tolist()])
    content = {
        "name": name,
        "min_cell": 5,
        "outcomes": {"path": "outcomes.csv", "patient": "id", "months": "fu", "event": "ev"},
        "covariates": {each: {"column": each, "unit": "as is"} for each in names},
    }
    (site / "site.yaml").write_text(yaml.safe_dump(content))
    write_public_secret(site)
    return site


def test_what_a_model_learns_from_noise_is_all_optimism(tmp_path: Path) -> None:
    corrected, gains = [], []
    for seed in range(5):
        folder = tmp_path / str(seed)
        sites = [noise_hospital(folder, name, 10 * seed + k) for k, name in enumerate(SIZES)]
        asked = study(25, covariates=[f"x{k}" for k in range(NOISE)])
        ours = found(kit.run(asked, kit.RecordingGrid(sites), folder / "run"))
        assert ours.apparent > 0.5 and ours.optimism > 3 * (ours.optimism_se or 0)
        corrected.append(ours.corrected)
        gains.append(ours.optimism)
    # About 96 training patients each; the C of a fixed score there has an error of about .04.
    assert abs(np.mean(corrected) - 0.5) < 3 * 0.04 / np.sqrt(5)
    assert np.mean(gains) > 0.05
