"""Studies whose every statistic is a secure sum: the plain study's figures, and nobody's own."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Message
from scipy.stats import chisquare

from client.policy import site_ledger
from client.secure_settings import MASKED
from protocol.config import Study
from protocol.errors import QuorumError
from server.report.pooling import pooled
from server.report.write import render_report
from server.results import Results
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals


def _load() -> ModuleType:
    place = Path(__file__).with_name("secure_hospitals.py")
    spec = importlib.util.spec_from_file_location("secure_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()
tables = kit.kit
COLUMNS = ["age", "gene_12"]
TRAIN, EXTERNAL = ["h0", "h1", "h2"], ["h3", "h4", "h5"]
TELL = "query.secure_tell"


def study(name: str = "sums", **changes: Any) -> Study:
    """Return a study of all stages of tables; its secure sums cover everything."""
    sections: dict[str, dict[str, Any]] = {
        "regression": {"covariates": COLUMNS, "patients": "training", "horizon_months": 48},
        "prognosis": {
            "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
            "covariates": COLUMNS,
            "num_intervals": 4,
            "max_horizon_months": 48,
            "rounds": 1,
            "training": {"learning_rate": 0.05, "epochs": 4},
        },
        "validate": {"bootstrap": 4, "thresholds": [0.3], "score_bins": 20},
        "rounds": {"join_s": 5},
    }
    sections = {key: part | changes.pop(key, {}) for key, part in sections.items()}
    return Study.model_validate(
        {
            "name": name,
            "seed": 3,
            "hospitals": {"train": TRAIN, "external": EXTERNAL},
            "stages": ["survey", "regression", "prognosis", "validate"],
            "holdout": {"fold": 0, "num_folds": 3},
            "ranges": {"gene_12": [-3, 3]},
            "secure_aggregation": {"min_cell": 1},
            **sections,
            **changes,
        }
    )


def plain(chosen: Study) -> Study:
    values = chosen.model_dump(mode="json", by_alias=True) | {"secure_aggregation": None}
    return Study.model_validate(values)


def hospitals(folder: Path, number: int, size: int = 90, **settings: Any) -> list[Path]:
    folder.mkdir()
    sites = []
    for k in range(number):
        part = tables.cohort(k, size + 10 * (k % 3))
        part["x"][:: 9 + k, 1] = np.nan
        sites.append(tables.write_hospital(folder, f"h{k}", part, min_cell=settings.pop("k", 1)))
    kit.introduce(sites, **settings)
    return sites


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results, Any]:
    """One study with secure sums and without, over the same patients, and what was sent in it."""
    folder = tmp_path_factory.mktemp("both")
    sites = hospitals(folder / "sites", 6)
    grid = kit.FaultyGrid(sites)
    summed = tables.judge(study(), grid, folder / "summed")
    return summed, tables.judge(plain(study()), kit.FaultyGrid(sites), folder / "plain"), grid


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_every_figure_is_that_of_the_plain_study(both: tuple[Results, Results, Any]) -> None:
    """Weights differ by the rounding of updates, a ten-millionth; so do predictions and sums."""
    summed, expected, _ = both
    for role in ("train", "external"):
        mine, theirs = pooled(summed, "federated", role), pooled(expected, "federated", role)
        mine_told, theirs_told = (part.model_dump(mode="json") for part in (mine, theirs))
        assert numbers(mine_told["regression_pairs"]) == numbers(theirs_told["regression_pairs"])
        assert numbers(mine_told["pairs"]) == numbers(theirs_told["pairs"])
        assert mine_told["life_table"] == theirs_told["life_table"]
        assert numbers(mine_told) == pytest.approx(numbers(theirs_told), rel=1e-4, abs=1e-4)
        curves = (part.arms["federated"].evaluation[role] for part in (summed, expected))
        # How many questions a fit takes hangs on the last digits.
        unlike = {"calibration": {"__all__": {"rounds"}}}
        found, wanted = (curve.model_dump(mode="json", exclude=unlike) for curve in curves)
        assert numbers(found) == pytest.approx(numbers(wanted), rel=1e-4, abs=1e-3)
    rows = zip(summed.subgroups, expected.subgroups, strict=True)
    for mine_row, their_row in rows:
        assert (mine_row.attribute, mine_row.group) == (their_row.attribute, their_row.group)
        told = {"network", "regression"}
        mine_told, theirs_told = (r.model_dump(include=told) for r in (mine_row, their_row))
        assert numbers(mine_told) == pytest.approx(numbers(theirs_told), abs=1e-6)
    regressions = (part.regression.model_dump(mode="json") for part in (summed, expected))
    assert numbers(next(regressions)) == pytest.approx(numbers(next(regressions)), abs=1e-6)


def test_the_cohort_is_that_of_all_together_and_nobody_is_shown_alone(
    both: tuple[Results, Results, Any],
) -> None:
    summed, expected, _ = both
    assert [hospital.together for hospital in summed.hospitals] == [tuple(TRAIN), tuple(EXTERNAL)]
    for row, names in zip(summed.hospitals, (TRAIN, EXTERNAL), strict=True):
        own = [hospital for hospital in expected.hospitals if hospital.name in names]
        assert row.patients == sum(hospital.patients for hospital in own)
        assert row.events == sum(hospital.events for hospital in own)
        assert row.person_years == pytest.approx(sum(h.person_years for h in own), abs=1e-4)
        total = own[0].covariates.merge(own[1].covariates).merge(own[2].covariates)
        assert row.covariates.n.tolist() == total.n.tolist()
        np.testing.assert_allclose(row.covariates.mean, total.mean, atol=1e-7)
        np.testing.assert_allclose(row.covariates.sd, total.sd, atol=1e-7)
        assert row.units == own[0].units
    assert set(summed.arms["federated"].sites) == {row.name for row in summed.hospitals}
    page = render_report(summed)
    assert "h0, h1, h2 are told of together: their numbers travelled as a secure sum" in page
    assert "was trained at 3 hospitals and judged at h3, h4, h5" in page


def test_what_the_centre_was_sent_holds_no_answer(both: tuple[Results, Results, Any]) -> None:
    *_, grid = both
    told = [m for m in grid.replies if m.metadata.message_type in MASKED]
    assert {m.metadata.message_type for m in told} >= {
        "query.survey",
        "query.cox",
        "query.scores",
        "evaluate.regression",
        "evaluate.prognosis",
        "evaluate.weighted",
        "evaluate.calibration",
        "evaluate.subgroups",
    }
    for message in told:
        document = json.loads(str(message.content["document"]["json"]))
        assert set(document) == {"kind", "deposits", "commitments"}
        assert list(message.content["arrays"]) == ["masked"]
    words = np.concatenate([_words(message) for message in told])
    assert chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-9
    # Most of what was masked are zeros: cells of a grid with nobody in them.
    survey = [_words(m) for m in told if m.metadata.message_type == "query.survey"]
    assert all((part != 0).all() for part in survey)
    others = {m.metadata.message_type for m in grid.replies if m not in told}
    assert others == {"query.hello", "query.secure_open", TELL, "train.prognosis"}


def _words(message: Message) -> np.ndarray:
    data = message.content["arrays"]["masked"].data
    return np.frombuffer(data[128:], np.uint64)


CASES = {
    "pooled": {"regression": {"form": "grid", "step_months": 6}},
    "imputed": {"regression": {"missing": "impute", "imputations": 2, "iterations": 1}},
    "optimism": {"validate": {"designs": ["bootstrap"], "optimism_replicates": 1}},
}


@pytest.mark.parametrize("case", CASES)
def test_every_form_of_the_regression_is_that_of_the_plain_study(case: str, tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites", 3, 60)
    where = {"train": TRAIN}
    chosen = study(hospitals=where, stages=["survey", "regression"], **CASES[case])
    summed = tables.run(chosen, kit.FaultyGrid(sites), tmp_path / "summed")
    expected = tables.run(plain(chosen), kit.FaultyGrid(sites), tmp_path / "plain")
    found, wanted = summed.regression, expected.regression
    assert found.penalty == pytest.approx(wanted.penalty)
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert row.beta == pytest.approx(other.beta, abs=1e-7)
        assert (row.se or 0) == pytest.approx(other.se or 0, abs=1e-7)
    assert numbers(summed.designs.model_dump(mode="json")) == pytest.approx(
        numbers(expected.designs.model_dump(mode="json")), abs=1e-6
    )


@pytest.mark.parametrize("head", ["cox_stratified", "cox_two_phase"])
def test_cox_heads_train_and_get_their_baseline_from_sums(head: str, tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites", 3, 60)
    chosen = study(
        hospitals={"train": TRAIN}, stages=["survey", "prognosis"], prognosis={"head": head}
    )
    grid = kit.FaultyGrid(sites)
    found = tables.judge(chosen, grid, tmp_path / "summed")
    wanted = tables.judge(plain(chosen), kit.FaultyGrid(sites), tmp_path / "plain")
    assert found.baseline.step_months == wanted.baseline.step_months
    assert found.baseline.patients == wanted.baseline.patients
    tolerance = 1e-9 if head == "cox_two_phase" else 1e-5
    np.testing.assert_allclose(found.baseline.hazard, wanted.baseline.hazard, atol=tolerance)
    for message in grid.replies:
        if message.metadata.message_type in {"train.gradient", "query.risk_sets"}:
            assert list(message.content["arrays"]) == ["masked"]


def test_totals_are_withheld_where_they_are_small_and_only_there(tmp_path: Path) -> None:
    """Three patients a hospital, who would tell nothing alone: twelve together, four events."""
    (tmp_path / "sites").mkdir()
    sites = []
    for k in range(4):
        part = tables.cohort(k, 3)
        part["event"] = np.array([1, 0, 0])
        sites.append(tables.write_hospital(tmp_path / "sites", f"h{k}", part, min_cell=5))
    kit.introduce(sites)
    names = {"train": ["h0", "h1", "h2", "h3"]}
    chosen = study(hospitals=names, stages=["survey"], secure_aggregation={})
    [row] = tables.judge(chosen, kit.FaultyGrid(sites), tmp_path / "summed").hospitals
    assert (row.patients, row.events) == (12, None)
    assert row.covariates.n.tolist() == [10, 10]
    alone = tables.judge(plain(chosen), kit.FaultyGrid(sites), tmp_path / "plain").hospitals
    assert [hospital.patients for hospital in alone] == [None] * 4
    lax = study(name="lax", hospitals=names, stages=["survey"], secure_aggregation={"min_cell": 4})
    with pytest.raises(QuorumError, match=r"h0 tells no count below 5 patients, and the study"):
        tables.judge(lax, kit.FaultyGrid(sites), tmp_path / "lax")


def test_a_hospital_that_leaves_in_the_middle_of_a_question_spoils_nothing(tmp_path: Path) -> None:
    """Gone before it answers the first pass, and another when the second is to be opened."""
    sites = hospitals(tmp_path / "sites", 4, 60)
    names = ["h0", "h1", "h2", "h3"]
    chosen = study(
        hospitals={"train": names},
        stages=["survey", "prognosis", "validate"],
        validate={"subgroups": False},
        rounds={"quorum": 0.6},
    )

    def before(site: str, kind: str, number: int) -> bool:
        return (site, kind) == ("h2", "evaluate.prognosis")

    grid = kit.FaultyGrid(sites, before, after=lambda s, k, n: (s, k, n) == ("h1", TELL, 5))
    found = tables.judge(chosen, grid, tmp_path / "run")
    lost = kit.FaultyGrid(sites, before)
    reference = tables.judge(plain(chosen), lost, tmp_path / "plain")
    mine, theirs = (pooled(part, "federated", "train") for part in (found, reference))
    assert mine.pairs.num_patients == theirs.pairs.num_patients
    assert numbers(mine.pairs.to_dict()) == numbers(theirs.pairs.to_dict())
    # Kept sums answer when the study is run again, whoever is there then.
    again = kit.FaultyGrid(sites, before=lambda s, k, _: s == "h3" and not k.endswith("hello"))
    assert tables.judge(chosen, again, tmp_path / "run") == found
    assert {m.metadata.message_type for m in again.requests} == {"query.hello"}


def test_of_two_external_hospitals_the_one_that_permits_it_answers_plainly(tmp_path: Path) -> None:
    sites = hospitals(tmp_path / "sites", 5, 60)
    for site in sites[3:]:
        content = yaml.safe_load((site / "site.yaml").read_text())
        content["min_cell"] = 5
        content["secure_aggregation"] = {"plain_when_few": True}
        if site.name == "h4":
            del content["secure_aggregation"]
        (site / "site.yaml").write_text(yaml.safe_dump(content))
    chosen = study(
        hospitals={"train": TRAIN, "external": ["h3", "h4"]},
        stages=["survey", "regression", "validate"],
    )
    results = tables.judge(chosen, kit.FaultyGrid(sites), tmp_path / "run")
    rows = {hospital.name: hospital for hospital in results.hospitals}
    assert list(rows) == ["training hospitals together", "h3", "h4"]
    assert rows["h3"].patients == 60 and rows["h4"].patients is None
    judged = results.arms["federated"].sites
    assert judged["h3"].regression_pairs is not None and "h4" not in judged
    page = render_report(results)
    assert "h3 permits its own numbers to be shown" in page
    assert "h4 told nothing: too few hospitals have its role" in page


def test_masks_and_measurements_of_images_are_judged_in_sums(tmp_path: Path) -> None:
    vendors = ("siemens", "philips", "ge")
    made = [
        {"name": f"h{k}", "num_patients": 3, "num_masks": 3, "vendors": {vendor: 1}}
        for k, vendor in enumerate(vendors)
    ]
    images = {"cine_frames": 4, "matrix_px": 64}
    config = PhantomConfig.model_validate({"hospitals": made, "images": images})
    make_hospitals(config, tmp_path / "sites", 3, 1)
    sites = [tmp_path / "sites" / f"h{k}" for k in range(3)]
    for site in sites:
        content = yaml.safe_load((site / "site.yaml").read_text())
        # In bf16 the masked sum's last bit would grow to a contour's.
        content |= {"min_cell": 1, "precision": "fp32"}
        (site / "site.yaml").write_text(yaml.safe_dump(content))
    kit.introduce(sites)
    chosen = study(
        hospitals={"train": TRAIN},
        stages=["survey", "segment", "measure", "validate"],
        preprocessing={"spacing_mm": 2.5, "crop_px": 64},
        holdout={"fold": 0, "num_folds": 2},
        segment={"network": {"name": "unet", "options": {"channels": [4, 8]}}, "rounds": 1},
        prognosis={"measurements": ["lv_edv_ml"], "covariates": [], "crop_px": 32},
    )
    summed = tables.judge(chosen, kit.FaultyGrid(sites), tmp_path / "summed")
    expected = tables.judge(plain(chosen), kit.FaultyGrid(sites), tmp_path / "plain")
    mine, theirs = (
        pooled(part, "federated", "train").model_dump(mode="json") for part in (summed, expected)
    )
    for name in ("overlap", "agreement"):
        assert numbers(mine[name]) == pytest.approx(numbers(theirs[name]), rel=1e-4, abs=1e-3)
    [row] = summed.hospitals
    own = expected.hospitals
    assert row.vendors == {key: n for h in own for key, n in h.vendors.items()}
    series = sum(n for h in own for key, n in h.refused.items() if key.startswith("series"))
    assert row.refused["series"] == series
    assert [r.group for r in summed.subgroups] == [r.group for r in expected.subgroups]


TERMS = {
    "noise_multiplier": 1.0,
    "clip_norm": 1.0,
    "sampling_rate": 0.2,
    "steps_per_round": 3,
    "max_rounds": 5,
    "delta": 1e-3,
    "study_epsilon": 1e30,
    "lifetime_epsilon": 1e30,
    "statistics_noise": 1.0,
}


def test_secure_sums_and_noise_in_training_and_on_updates_in_one_study(tmp_path: Path) -> None:
    """Patients are protected by noise at the hospitals, hospitals by masks and by noise shared."""
    sites = hospitals(tmp_path / "sites", 4, 60)
    for site in sites:
        (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": TERMS}))
    updates = {"noise_multiplier": 0.5, "clip_norm": 0.5, "delta": 1e-3}
    chosen = study(
        hospitals={"train": ["h0", "h1", "h2"], "external": []},
        secure_aggregation={"updates": updates, "step_bits": 20},
    )
    results = tables.judge(chosen, kit.FaultyGrid(sites[:3]), tmp_path / "run")
    [row] = results.hospitals
    assert row.noise_sd is not None and abs(row.patients - 210) < 10 * row.noise_sd
    page = render_report(results)
    assert "(noised †, sd" in page and "Of h0, h1, h2 some answer with noise" in page
    for site in sites[:3]:
        entries = site_ledger(site).entries()
        assert all(entry.committed for entry in entries)
        rounds = [(entry.purpose, entry.round_index) for entry in entries]
        assert rounds == [
            ("survey", None),
            ("prognosis", 1),
            ("query.scores", None),
            ("evaluate.prognosis", None),
        ]
    assert not site_ledger(sites[3]).entries()
    judged = results.arms["federated"].sites[row.name]
    # What has no noised answer is declined by all, and is in no sum.
    assert judged.pairs is None and results.regression is None and results.subgroups == ()
    assert judged.life_table is not None and judged.life_table.num_patients.sum() > 5
