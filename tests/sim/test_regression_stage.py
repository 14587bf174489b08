"""A Cox fit through the real apps: the pooled numbers, and nothing of a patient on the wire."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from flwr.app import Error, Message
from lifelines import CoxPHFitter

from protocol.errors import QuorumError, TrainingError
from server.report.write import render_report
from server.results import Results, load_results


def _load() -> ModuleType:
    place = Path(__file__).with_name("tabular_hospitals.py")
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
SIZES = {"h0": 90, "h1": 60, "h2": 75}
FORMS = {
    "stratified": {"form": "stratified"},
    # Hospitals that withhold small counts move their times together on so short a follow-up.
    "grid": {"form": "grid", "step_months": 12, "horizon_months": 60, "max_coarse_months": 60},
}


@pytest.fixture(scope="module")
def cohorts() -> dict[str, dict[str, np.ndarray]]:
    return {name: kit.cohort(seed, size) for seed, (name, size) in enumerate(SIZES.items())}


@pytest.fixture(scope="module")
def sites(
    cohorts: dict[str, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    return [kit.write_hospital(folder, name, part, min_cell=5) for name, part in cohorts.items()]


def table(cohorts: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    parts = []
    for name, part in cohorts.items():
        frame = pd.DataFrame(part["x"], columns=["age", "gene_12"])
        parts.append(frame.assign(months=part["months"], event=part["event"], site=name))
    return pd.concat(parts, ignore_index=True)


def lifelines_fit(frame: pd.DataFrame, **options: object) -> CoxPHFitter:
    return CoxPHFitter().fit(frame, "months", "event", fit_options={"precision": 1e-11}, **options)


def assert_same(results: Results, reference: CoxPHFitter) -> None:
    fitted = results.regression
    assert fitted is not None
    names = [row.name for row in fitted.rows]
    beta, se = reference.params_[names].to_numpy(), reference.standard_errors_[names].to_numpy()
    np.testing.assert_allclose([row.beta for row in fitted.rows], beta, atol=1e-7)
    np.testing.assert_allclose([row.se for row in fitted.rows], se, atol=1e-7)
    assert fitted.log_likelihood == pytest.approx(float(reference.log_likelihood_), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_hospitals_that_withhold_small_counts_give_the_exact_stratified_fit(
    sites: list[Path], cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    results = kit.run(kit.regression_study(SIZES), kit.RecordingGrid(sites), tmp_path)
    assert_same(results, lifelines_fit(table(cohorts), strata=["site"]))
    assert load_results(tmp_path / "results.json").regression == results.regression
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Cox regression</h2>" in page and "225 patients with" in page


@pytest.mark.filterwarnings("ignore")
def test_late_entry_through_the_apps(
    cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    sites = [kit.write_hospital(tmp_path, name, part, late=True) for name, part in cohorts.items()]
    results = kit.run(kit.regression_study(SIZES), kit.RecordingGrid(sites), tmp_path / "run")
    frame = table(cohorts).assign(start=np.concatenate([c["start"] for c in cohorts.values()]))
    assert_same(results, lifelines_fit(frame, strata=["site"], entry_col="start"))


@pytest.mark.parametrize("form", ["stratified", "grid"])
def test_no_time_score_or_covariate_of_a_patient_is_sent(
    sites: list[Path],
    cohorts: dict[str, dict[str, np.ndarray]],
    tmp_path: Path,
    form: str,
) -> None:
    grid = kit.RecordingGrid(sites)
    study = kit.regression_study(
        list(SIZES)[:2],
        ["h2"],
        stages=["survey", "regression", "validate"],
        regression={**FORMS[form], "patients": "training"},
    )
    results = kit.run(study, grid, tmp_path)
    assert results.regression is not None
    kinds = {topic for _, topic, _ in grid.sent}
    judged = {"evaluate.regression", "evaluate.subgroups"}
    assert kinds == {"query.hello", "query.survey", "query.cox", *judged}
    beta = np.array([row.beta for row in results.regression.rows])
    everyone = {key: np.concatenate([c[key] for c in cohorts.values()]) for key in ("months", "x")}
    score = everyone["x"] @ beta
    private = np.concatenate(
        [everyone["months"], everyone["x"].ravel(), score, np.exp(score - score.mean())]
    )
    # What the reader of neighbouring risk sets could take apart is sent as well.
    numbers = grid.numbers()
    sent = np.unique(np.concatenate([numbers, np.abs(np.diff(numbers))]))
    nearest = np.clip(np.searchsorted(sent, private), 1, len(sent) - 1)
    distance = np.minimum(abs(sent[nearest] - private), abs(sent[nearest - 1] - private))
    # Numbers of one scale lie close by chance; equal to nine digits they would be the patient's.
    assert (distance > 1e-9 * np.maximum(1, abs(private))).all()
    text = "".join(text for _, _, text in grid.sent)
    for value in (*everyone["months"], *everyone["x"].ravel()):
        assert repr(float(value)) not in text
        assert f"{value:.4f}" not in text or abs(value) < 1
    assert "P1" not in text and "outcomes.csv" not in text


@pytest.mark.parametrize("form", ["stratified", "grid"])
def test_a_hospital_with_few_events_refuses_before_it_sends_sums(
    sites: list[Path], tmp_path: Path, form: str
) -> None:
    few = kit.cohort(9, 40)
    few["event"] = np.where(np.arange(40) < 3, 1, 0)
    small = kit.write_hospital(tmp_path, "small", few, min_cell=5)
    names = [*SIZES, "small"]
    study = kit.regression_study(names, regression=FORMS[form])
    grid = kit.RecordingGrid([*sites, small])
    with pytest.raises(QuorumError, match=r"small: E200 small: .* fewer events than its minimum"):
        kit.run(study, grid, tmp_path / "all")
    answers = [text for site, topic, text in grid.sent if (site, topic) == ("small", "query.cox")]
    assert len(answers) == 1 and 'sums"' not in answers[0]
    enough = kit.regression_study(
        names, regression=FORMS[form], rounds={"quorum": 0.7, "join_s": 5}
    )
    results = kit.run(enough, kit.RecordingGrid([*sites, small]), tmp_path / "most")
    without = kit.run(
        kit.regression_study(SIZES, regression=FORMS[form]),
        kit.RecordingGrid(sites),
        tmp_path / "three",
    )
    assert results.regression is not None and without.regression is not None
    assert results.regression.hospitals == tuple(SIZES)
    beta = [row.beta for row in results.regression.rows]
    assert beta == pytest.approx([row.beta for row in without.regression.rows], abs=1e-8)


class Unsteady(kit.RecordingGrid):
    """Loses one hospital's answer to its third question of the regression."""

    count = 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for reply in super().pull_messages(message_ids):
            site = self.names[reply.metadata.src_node_id]
            if reply.metadata.message_type == "query.cox" and site == "h1":
                self.count += 1
                if self.count == 3:
                    reply = Message(Error(2, "gone"), reply_to=reply)
            replies.append(reply)
        return replies


@pytest.mark.filterwarnings("ignore")
def test_a_hospital_that_leaves_during_the_fit_is_not_in_it(
    sites: list[Path], cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    study = kit.regression_study(SIZES, rounds={"quorum": 0.6, "join_s": 5})
    results = kit.run(study, Unsteady(sites), tmp_path)
    assert results.regression is not None and results.regression.hospitals == ("h0", "h2")
    others = {name: part for name, part in cohorts.items() if name != "h1"}
    assert_same(results, lifelines_fit(table(others), strata=["site"]))


@pytest.fixture
def gaps(
    cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> tuple[dict[str, dict[str, np.ndarray]], list[Path]]:
    """The same hospitals; h1 has not measured the gene, h2 in every fourth patient not."""
    holed = {name: {**part, "x": part["x"].copy()} for name, part in cohorts.items()}
    holed["h1"]["x"][:, 1] = np.nan
    holed["h2"]["x"][::4, 1] = np.nan
    return holed, [
        kit.write_hospital(tmp_path, name, part, min_cell=5) for name, part in holed.items()
    ]


def test_a_covariate_absent_at_a_hospital_is_named(
    gaps: tuple[dict, list[Path]], tmp_path: Path
) -> None:
    _, sites = gaps
    with pytest.raises(QuorumError, match=r"h1 has no patient in whom .* \(nobody has gene_12\)"):
        kit.run(kit.regression_study(SIZES), kit.RecordingGrid(sites), tmp_path / "run")


@pytest.mark.filterwarnings("ignore")
def test_an_indicator_keeps_everybody(gaps: tuple[dict, list[Path]], tmp_path: Path) -> None:
    holed, sites = gaps
    study = kit.regression_study(SIZES, regression={"missing": "indicator"})
    results = kit.run(study, kit.RecordingGrid(sites), tmp_path / "run")
    assert results.regression is not None and results.regression.patients == sum(SIZES.values())
    frame = table(holed)
    absent = frame["gene_12"].isna()
    frame = frame.assign(**{"gene_12 missing": absent.astype(float)})
    # The common mean is that of the survey: of all hospitals' training patients.
    frame["gene_12"] = frame["gene_12"].fillna(_mean(results))
    assert_same(results, lifelines_fit(frame, strata=["site"]))
    assert "gene 12 missing" in render_report(results)


IMPUTE = {"missing": "impute", "imputations": 8, "iterations": 3}


def test_imputation_keeps_everybody_and_knows_what_it_does_not_know(
    gaps: tuple[dict, list[Path]], cohorts: dict, tmp_path: Path
) -> None:
    _, sites = gaps
    grid = kit.RecordingGrid(sites)
    study = kit.regression_study(SIZES, regression=IMPUTE)
    found = kit.run(study, grid, tmp_path / "run").regression
    assert found is not None
    assert (found.patients, found.imputations) == (sum(SIZES.values()), 8)
    age, gene = found.rows
    complete = lifelines_fit(table(cohorts), strata=["site"])
    # What was taken away is not got back: close to the fit of the whole data, less certain.
    assert gene.beta == pytest.approx(complete.params_["gene_12"], abs=2.5 * (gene.se or 0))
    assert (gene.se or 0) > complete.standard_errors_["gene_12"]
    assert 0.1 < (gene.missing_information or 0) < 0.9 and gene.p is not None and gene.p < 0.01
    assert age.beta == pytest.approx(complete.params_["age"], abs=0.02)
    private = np.concatenate([c[k].ravel() for c in cohorts.values() for k in ("months", "x")])
    sent = grid.numbers("query.cox")
    assert not np.isin(np.round(private, 9), np.round(sent, 9)).any()
    again = kit.run(study, kit.RecordingGrid(sites), tmp_path / "again").regression
    assert again == found


@pytest.mark.filterwarnings("ignore")
def test_imputing_what_is_complete_is_the_plain_fit(
    sites: list[Path], cohorts: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    study = kit.regression_study(SIZES, regression=IMPUTE)
    results = kit.run(study, kit.RecordingGrid(sites), tmp_path)
    assert_same(results, lifelines_fit(table(cohorts), strata=["site"]))


def test_a_hospital_that_never_measures_is_named_in_the_report(
    gaps: tuple[dict, list[Path]], tmp_path: Path
) -> None:
    _, sites = gaps
    study = kit.regression_study(SIZES, stages=["survey"])
    results = kit.run(study, kit.RecordingGrid(sites), tmp_path / "run")
    assert [(o.hospital, o.covariate) for o in results.oddities] == [("h1", "gene_12")]
    page = render_report(results)
    assert "h1, gene 12: missing in 100% of its patients, elsewhere in" in page


def _mean(results: Results) -> float:
    parts = [hospital.covariates for hospital in results.hospitals]
    total = parts[0]
    assert total is not None
    for part in parts[1:]:
        total = total.merge(part)
    return float(total.mean[total.index("gene_12")])


def test_the_fit_is_judged_where_it_was_not_made(sites: list[Path], tmp_path: Path) -> None:
    study = kit.regression_study(
        ["h0", "h1"],
        ["h2"],
        stages=["survey", "regression", "validate"],
        regression={"patients": "training"},
    )
    results = kit.run(study, kit.RecordingGrid(sites), tmp_path)
    pairs = results.arms["federated"].sites["h2"].regression_pairs
    assert pairs is not None and pairs.num_patients == SIZES["h2"] and 0.6 < pairs.c_index < 0.9
    page = render_report(results)
    assert page.count("Cox regression") >= 2 and "C-index" in page


def test_the_same_seed_gives_the_same_bytes(sites: list[Path], tmp_path: Path) -> None:
    study = kit.regression_study(SIZES, regression=FORMS["grid"])
    for folder in ("a", "b"):
        kit.run(study, kit.RecordingGrid(sites), tmp_path / folder)
    first, second = ((tmp_path / f / "results.json").read_bytes() for f in ("a", "b"))
    assert first == second


def test_a_covariate_that_is_constant_is_named(tmp_path: Path) -> None:
    part = kit.cohort(1, 60)
    part["x"][:, 1] = 0.5
    site = kit.write_hospital(tmp_path, "h0", part)
    with pytest.raises(TrainingError, match="'gene_12' does not vary"):
        kit.run(kit.regression_study(["h0"]), kit.RecordingGrid([site]), tmp_path / "run")
