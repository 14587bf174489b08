"""A study that cannot be summed securely is refused when it is read, with what to change."""

from typing import Any

import pytest

from protocol.config import Study
from protocol.errors import ConfigError
from protocol.yaml_files import parse


def study(**changes: Any) -> Study:
    values = {
        "name": "s",
        "seed": 1,
        "hospitals": {"train": ["a", "b", "c"]},
        "stages": ["survey", "prognosis"],
        "prognosis": {"covariates": ["age"]},
        "secure_aggregation": {},
    }
    return parse(Study, values | changes, "study.yaml")


def test_the_defaults_are_those_of_the_docstring() -> None:
    section = study().secure_aggregation
    assert section is not None
    assert (section.min_hospitals, section.threshold, section.updates) == (3, None, None)
    assert (section.cover, section.min_cell) == ("everything", 5)


SGD = {"optimizer": "sgd"}
NOISE = {"noise_multiplier": 1, "clip_norm": 1}
TRAINING = {"secure_aggregation": {"cover": "training"}}
ALL_COLLUDE = {"noise_multiplier": 1, "clip_norm": 1, "colluding": 3}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hospitals": {"train": ["a", "b"]}}, "needs 3 training hospitals and there are 2"),
        ({"secure_aggregation": {"threshold": 4}}, "needs 4 training hospitals"),
        (
            {"prognosis": {"strategy": {"name": "scaffold"}, "training": SGD}},
            r"prognosis\.strategy looks at the update of one hospital",
        ),
        ({"prognosis": {"strategy": {"ask": "in turn"}}}, "one in turn"),
        ({"prognosis": {"head": "cox_two_phase"}, **TRAINING}, "needs sums over risk sets"),
        (
            {"prognosis": {"head": "cox_two_phase"}, "secure_aggregation": {"updates": NOISE}},
            "head cox_two_phase sends gradients",
        ),
        ({"validate": {"designs": ["leave-one-hospital-out"]}}, "asks hospitals one by one"),
        ({"secure_aggregation": {"min_hospitals": 2}}, "min_hospitals"),
        ({"secure_aggregation": {"step_bits": 31}}, "step_bits"),
        ({"secure_aggregation": {"updates": ALL_COLLUDE}}, "nobody's noise would be unknown"),
        ({"secure_aggregation": {"updates": {"noise_multiplier": 0, "clip_norm": 1}}}, "noise"),
    ],
)
def test_what_needs_single_updates_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        study(**changes)


@pytest.mark.parametrize(
    "section",
    [
        {"form": "grid", "step_months": 12, "horizon_months": 60},
        {"missing": "impute"},
    ],
)
def test_where_only_training_is_covered_a_regression_is_a_stratified_one(
    section: dict[str, Any],
) -> None:
    changes = {"stages": ["survey", "regression"], "regression": {"covariates": ["age"], **section}}
    with pytest.raises(ConfigError, match="only where it covers everything"):
        study(**changes, **TRAINING)
    assert study(**changes).regression.covariates == ("age",)


def test_a_penalty_chosen_by_leaving_hospitals_out_would_show_each() -> None:
    section = {"covariates": ["age"], "penalty": "auto", "fold_by": "hospitals"}
    for covered in ({}, TRAINING):
        with pytest.raises(ConfigError, match="whose difference shows each hospital"):
            study(stages=["survey", "regression"], regression=section, **covered)


def test_optimism_is_summed_and_designs_of_single_hospitals_are_not() -> None:
    changes = {
        "stages": ["survey", "regression"],
        "regression": {"covariates": ["age"]},
        "validate": {"designs": ["bootstrap"]},
    }
    assert study(**changes).validate_.designs == ("bootstrap",)
    with pytest.raises(ConfigError, match="asks hospitals one by one"):
        study(**changes, **TRAINING)
