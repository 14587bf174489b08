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


SGD = {"optimizer": "sgd"}
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
        ({"prognosis": {"head": "cox_two_phase"}}, "needs sums over risk sets"),
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
        {"penalty": "auto", "fold_by": "hospitals"},
    ],
)
def test_a_regression_that_is_no_plain_sum_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="covers the stratified regression without imputation"):
        study(stages=["survey", "regression"], regression={"covariates": ["age"], **section})
