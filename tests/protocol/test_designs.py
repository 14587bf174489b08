"""Which studies a validation design consists of."""

import pytest

from protocol.config import Study
from protocol.designs import derive
from protocol.errors import ConfigError
from protocol.yaml_files import parse


def study(train: list[str], external: tuple[str, ...] = (), **changes: object) -> Study:
    values = {
        "name": "study",
        "seed": 1,
        "hospitals": {"train": train, "external": external},
        "stages": ["survey", "regression"],
        "regression": {"covariates": ["age"], "patients": "all"},
        **changes,
    }
    return parse(Study, values, "study.yaml")


def test_each_hospital_is_left_out_once_and_judges_alone() -> None:
    derived = derive(study(["a", "b", "c"], ("far",)), "leave-one-hospital-out")
    assert list(derived) == ["a", "b", "c"]
    assert derived["b"].hospitals.train == ("a", "c")
    assert derived["b"].hospitals.external == ("b",)


def test_each_hospital_trains_alone_and_all_others_judge() -> None:
    derived = derive(study(["a", "b", "c"], ("far",)), "hospital-matrix")
    assert derived["b"].hospitals.train == ("b",)
    assert derived["b"].hospitals.external == ("a", "c", "far")


@pytest.mark.parametrize("design", ["leave-one-hospital-out", "hospital-matrix"])
def test_derived_studies_are_valid_ordinary_studies(design: str) -> None:
    whole = study(
        ["a", "b"],
        stages=["survey", "segment", "regression", "prognosis"],
        segment={"strategy": {"name": "fedadam"}},
        prognosis={"covariates": ["age"], "strategy": {"name": "fedadam"}},
        validate={"designs": [design], "bootstrap": 7},
    )
    for one in derive(whole, design).values():
        assert Study.model_validate(one.model_dump(mode="json", by_alias=True)) == one
        assert one.stages == (*whole.stages, "validate")
        # Held-out patients are judged, so they must not be in the fit.
        assert one.regression.patients == "training"
        # No design inside a design; the rest of the judging is the study's own.
        assert one.validate_.designs == () and one.validate_.bootstrap == 7
        # A server's momentum has nothing to do at a single hospital.
        assert one.segment.strategy.name == one.prognosis.strategy.name == "fedavg"
        assert (one.seed, one.holdout) == (whole.seed, whole.holdout)


def test_every_study_of_every_design_has_a_name_of_its_own() -> None:
    hospitals = [f"{'h' * 40}{index}" for index in range(12)]
    whole = study(hospitals, name="s" * 60)
    names = [whole.name]
    for design in ("leave-one-hospital-out", "hospital-matrix"):
        names += [one.name for one in derive(whole, design).values()]
    assert len(set(names)) == 1 + 2 * 12
    assert max(map(len, names)) <= 64


def test_the_bootstrap_is_no_set_of_studies() -> None:
    with pytest.raises(ConfigError, match=r"bootstrap is not made of studies .* choose leave-one"):
        derive(study(["a", "b"]), "bootstrap")


def test_one_hospital_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match="needs two training hospitals at least, and study has 1"):
        derive(study(["a"]), "hospital-matrix")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validate": {"designs": ["bootstrap", "bootstrap"]}}, "a design stands twice"),
        (
            {"validate": {"designs": ["bootstrap"]}, "stages": ["survey", "prognosis"]},
            "the design bootstrap refits the Cox regression; add the stage",
        ),
        (
            {
                "validate": {"designs": ["bootstrap"]},
                "regression": {"covariates": ["age"], "missing": "impute"},
            },
            "the design bootstrap cannot refit an imputed regression",
        ),
        (
            {"validate": {"designs": ["hospital-matrix"]}, "stages": ["survey"]},
            "the design hospital-matrix has no model to judge",
        ),
        (
            {
                "validate": {"designs": ["leave-one-hospital-out"]},
                "hospitals": {"train": ["a"], "external": ["b"]},
            },
            "leave-one-hospital-out needs two training hospitals at least",
        ),
        ({"validate": {"designs": ["jackknife"]}}, "validate.designs.0"),
    ],
)
def test_a_study_that_cannot_be_designed_so_is_refused_at_the_door(
    changes: dict, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        study(["a", "b"], **changes)


@pytest.mark.parametrize(
    ("head", "name", "weight"),
    [
        ("logistic_hazard", "fedavg", "patients"),
        ("cox_time", "fedavg", "events"),
        ("cox_two_phase", "fedadam", "events"),
    ],
)
def test_a_hospital_alone_keeps_what_its_head_needs(head: str, name: str, weight: str) -> None:
    section = {"head": head, "covariates": ["age"]}
    whole = study(["a", "b"], stages=["survey", "prognosis"], prognosis=section)
    alone = derive(whole, "hospital-matrix")["a"].prognosis.strategy
    assert (alone.name, alone.weight_by) == (name, weight)
    parse(Study, derive(whole, "hospital-matrix")["a"].model_dump(by_alias=True), "derived")


def test_the_only_hospital_is_not_left_out_to_choose_a_penalty() -> None:
    section = {"covariates": ["age"], "penalty": "auto", "fold_by": "hospitals", "form": "grid"}
    alone = derive(study(["a", "b"], regression=section), "hospital-matrix")["a"]
    assert (alone.regression.fold_by, alone.regression.form) == ("patients", "stratified")
    parse(Study, alone.model_dump(by_alias=True), "derived")
