"""A training round at a hospital with a policy: what it refuses, charges and tells."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from client.hospital import open_hospital
from client.policy import site_ledger
from client.prognosis import train_round
from client.regression import answer as cox_answer
from client.risk_sets import answer as risk_sets_answer
from client.risk_sets import gradient_round
from client.segment import train_round as segment_round
from privacy.refusals import REASONS
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.errors import BudgetError, PrivacyError
from protocol.payload import Question, TrainReply, TrainRequest
from shared_models.networks import build
from shared_models.weights import to_arrays

SPACING = {"agreed": {"scales": {"age": [60.0, 10.0], "gene_12": [0.0, 1.0]}}}
CUTS = [12.0, 24.0, 36.0, 48.0]
AGREED: dict[str, Any] = {**SPACING["agreed"], "cuts_months": CUTS}
TERMS = {
    "noise_multiplier": 1.0,
    "clip_norm": 0.5,
    "sampling_rate": 0.3,
    "steps_per_round": 4,
    "max_rounds": 6,
    "delta": 1e-3,
    "study_epsilon": 50.0,
    "lifetime_epsilon": 50.0,
    "statistics_noise": 5.0,
}


def _load() -> ModuleType:
    place = Path(__file__).parents[1] / "sim" / "tabular_hospitals.py"
    spec = importlib.util.spec_from_file_location("tabular_hospitals", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = _load()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site: Path = kit.write_hospital(tmp_path, "elm", kit.cohort(1, 60), min_cell=5)
    set_policy(site)
    return site


def set_policy(site: Path, **changes: float) -> None:
    (site / "policy.yaml").write_text(yaml.safe_dump({"privacy": TERMS | changes}))


def study(head: str = "logistic_hazard", **changes: Any) -> Study:
    section = {
        "network": {"name": "prognosis", "options": {"channels": [], "hidden": 0}},
        "head": head,
        "covariates": ["age", "gene_12"],
        "num_intervals": len(CUTS),
        "rounds": 4,
        "training": {"learning_rate": 0.05},
    }
    return Study.model_validate(
        {
            "name": "private",
            "seed": 3,
            "hospitals": {"train": ["elm"]},
            "stages": ["survey", "prognosis"],
            "prognosis": section | changes.pop("prognosis", {}),
            "ranges": {"gene_12": [-3, 3]},
            **changes,
        }
    )


def start(given: Study) -> Arrays:
    section = given.prognosis
    return to_arrays(build(section.network.name, section.network_options(), seed=1))


def ask(site: Path, given: Study, round_index: int = 1, arrays: Arrays | None = None) -> TrainReply:
    request = TrainRequest(given, "prognosis", round_index, AGREED, arrays or start(given))
    return train_round(open_hospital(site, given), request)


def test_nothing_leaves_but_noised_weights_and_what_is_public(site: Path) -> None:
    given = study()
    reply = ask(site, given)
    assert reply.metrics == {} and reply.num_events == 0 and reply.rate_sum is None
    for name, value in start(given).items():
        found = reply.arrays[name]
        assert found.dtype == np.float32 and np.isfinite(found).all()
        assert not np.array_equal(found, value)
    # The survey's noised count, and then the round.
    purposes = [(e.purpose, e.round_index, e.committed) for e in site_ledger(site).entries()]
    assert purposes == [("survey", None, True), ("prognosis", 1, True)]


def test_the_number_of_patients_is_the_one_of_the_survey(site: Path) -> None:
    from client.policy import load_policy
    from client.private_survey import survey

    given = study()
    hospital = open_hospital(site, given)
    terms = load_policy(site, hospital.config).privacy
    assert terms is not None
    told = survey(hospital, Question(given, "survey"), terms).document["can_train"]["prognosis"]
    assert ask(site, given).num_patients == told
    # Two studies, two draws: it is no exact count.
    counts = {ask(site, study(name=f"other_{k}")).num_patients for k in range(3)}
    assert len({told, *counts}) > 1


def test_a_round_that_is_asked_again_costs_nothing_and_is_the_same(site: Path) -> None:
    given = study()
    first = ask(site, given)
    spent = site_ledger(site).spent(TERMS["delta"])
    second = ask(site, given)
    assert site_ledger(site).spent(TERMS["delta"]) == spent
    assert all(np.array_equal(first.arrays[n], second.arrays[n]) for n in first.arrays)
    third = ask(site, given, 2, first.arrays)
    assert site_ledger(site).spent(TERMS["delta"]) > spent
    assert not all(np.array_equal(first.arrays[n], third.arrays[n]) for n in first.arrays)


def test_the_study_s_seed_has_no_influence_on_the_noise(tmp_path: Path) -> None:
    moves = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        site = kit.write_hospital(tmp_path / name, "elm", kit.cohort(1, 60), min_cell=5)
        set_policy(site)
        reply = ask(site, study())
        moves.append(np.concatenate([v.ravel() for v in reply.arrays.values()]))
    # The same seed, patients and hospital secret; the noise alone differs.
    assert not np.allclose(moves[0], moves[1])


def test_the_centre_cannot_ask_for_less_privacy(site: Path) -> None:
    for asked in ({"noise_multiplier": 0.1}, {"clip_norm": 100.0}, {"steps_per_round": 99}):
        with pytest.raises(PrivacyError, match="the study asks for privacy"):
            ask(site, study(privacy=asked))
    assert site_ledger(site).entries() == ()


def test_the_budget_ends_the_rounds(site: Path) -> None:
    set_policy(site, study_epsilon=3.0, lifetime_epsilon=3.0)
    given = study()
    arrays = start(given)
    with pytest.raises(BudgetError, match="declined: budget"):
        for round_index in range(1, 7):
            arrays = ask(site, given, round_index, arrays).arrays
    assert site_ledger(site).spent(TERMS["delta"]) <= 3.0


@pytest.mark.parametrize(
    ("given", "name", "what"),
    [
        (study("deephit"), "rank_loss", "head 'deephit'"),
        (study("cox_stratified"), "cox", "head 'cox_stratified'"),
        (study("cox_time"), "cox", "head 'cox_time'"),
        (study("cox_two_phase"), "cox_two_phase", "head 'cox_two_phase'"),
        (
            study(prognosis={"strategy": {"weight_by": "events"}}),
            "weight_by_events",
            "the weights of the stage prognosis",
        ),
        (
            study(prognosis={"rounds": 7}),
            "rounds",
            "the stage prognosis of 7 rounds (at most 6)",
        ),
    ],
)
def test_what_cannot_be_private_is_refused_and_free(
    site: Path, given: Study, name: str, what: str
) -> None:
    with pytest.raises(PrivacyError) as caught:
        ask(site, given)
    assert caught.value.sentence == f"{what} cannot be private: {REASONS[name]}."
    assert site_ledger(site).entries() == ()


def test_sums_without_noise_are_refused(site: Path) -> None:
    given = study("cox_two_phase")
    hospital, arrays = open_hospital(site, given), start(given)
    agreed = {**AGREED, "risk_sets": {"step_months": 6}, "cox": {}}
    request = TrainRequest(given, "prognosis", 1, agreed, arrays)
    with pytest.raises(PrivacyError, match="sums over patients without noise"):
        gradient_round(hospital, request)
    with pytest.raises(PrivacyError, match="sums over patients without noise"):
        risk_sets_answer(hospital, Question(given, "risk_sets", agreed, arrays))
    with pytest.raises(PrivacyError, match="the sums of a Cox regression"):
        cox_answer(hospital, Question(given, "cox", agreed))


def test_proximal_terms_and_control_variates_see_noised_weights_only(site: Path) -> None:
    proximal = study(prognosis={"training": {"learning_rate": 0.05, "proximal_mu": 0.1}})
    assert ask(site, proximal).metrics == {}
    training = {"learning_rate": 0.05, "optimizer": "sgd"}
    given = study(
        name="scaffold", prognosis={"training": training, "strategy": {"name": "scaffold"}}
    )
    arrays = start(given)
    control = {name: np.zeros_like(value) for name, value in arrays.items()}
    request = TrainRequest(given, "prognosis", 1, AGREED, arrays, control)
    hospital = open_hospital(site, given)
    reply = train_round(hospital, request)
    assert reply.rate_sum == pytest.approx(4 * 0.05)
    (file,) = hospital.workspace(given).glob("control/prognosis/round-*.safetensors")
    from shared_models.weights import load

    own, _ = load(file)
    # c_i = (x - y) / (K eta): nothing that is not in the reply.
    for name, value in own.items():
        expected = (arrays[name] - reply.arrays[name]) / reply.rate_sum
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_without_a_policy_nothing_changes(site: Path) -> None:
    (site / "policy.yaml").unlink()
    reply = ask(site, study())
    assert "loss" in reply.metrics and reply.num_events > 0
    assert not (site / ".concors" / "privacy").exists()


def test_a_patient_of_a_segmentation_round_is_all_their_slices(
    phantom_hospitals: Path, tmp_path: Path
) -> None:
    import shutil

    site = tmp_path / "elm"
    shutil.copytree(phantom_hospitals / "elm", site)
    set_policy(site, sampling_rate=1.0, noise_multiplier=4.0)
    given = Study.model_validate(
        {
            "name": "masks",
            "seed": 1,
            "hospitals": {"train": ["elm"]},
            "stages": ["survey", "segment"],
            "preprocessing": {"spacing_mm": 4.0, "crop_px": 32},
            "holdout": {"fold": 0, "num_folds": 10},
            "segment": {"network": {"name": "unet", "options": {"channels": [4, 6]}}, "rounds": 1},
        }
    )
    model = build(given.segment.network.name, given.segment.network.options, seed=1)
    request = TrainRequest(given, "segment", 1, {}, to_arrays(model))
    reply = segment_round(open_hospital(site, given), request)
    assert reply.metrics == {} and reply.arrays.keys() == request.arrays.keys()
    assert any(not np.array_equal(reply.arrays[n], v) for n, v in request.arrays.items())
    assert [e.purpose for e in site_ledger(site).entries()] == ["survey", "segment"]
