"""Who belongs to which group."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import Patient
from client.subgroups import subgroups
from protocol.subgroups import GROUPS

PATIENT = Patient(
    key="0" * 16,
    cine=np.zeros((2, 1, 4, 4), np.float32),
    labels=None,
    lge=None,
    lge_present=np.zeros(1, bool),
    spacing_mm=(10.0, 1.5, 1.5),
    vendor="siemens",
    field_strength_t=1.5,
    months=12.0,
    event=0,
    covariates={},
)


def group_of(patient: Patient, attribute: str) -> str:
    found = [group for group, mask in subgroups([patient])[attribute].items() if mask[0]]
    assert len(found) == 1
    return found[0]


NUMBER = st.one_of(st.just(math.nan), st.floats(0, 120))


@given(
    people=st.lists(
        st.tuples(
            st.sampled_from(["siemens", "philips", "ge", "canon", "other"]),
            st.one_of(st.just(math.nan), st.floats(0.2, 7)),
            NUMBER,
            st.sampled_from([0.0, 1.0, math.nan]),
        ),
        max_size=12,
    )
)
def test_every_patient_is_in_one_group_of_each_attribute(people: list[tuple]) -> None:
    patients = [
        replace(PATIENT, vendor=v, field_strength_t=t, covariates={"age": age, "sex": sex})
        for v, t, age, sex in people
    ]
    found = subgroups(patients)
    assert {attribute: tuple(groups) for attribute, groups in found.items()} == dict(GROUPS)
    for groups in found.values():
        assert (np.sum(list(groups.values()), axis=0) == 1).all()


@pytest.mark.parametrize(
    ("years", "band"),
    [
        (0, "<40"),
        (39.99, "<40"),
        (40, "40-59"),
        (59.99, "40-59"),
        (60, "60-74"),
        (75, ">=75"),
        (120, ">=75"),
        (math.nan, "unknown"),
    ],
)
def test_bands_of_age_at_their_limits(years: float, band: str) -> None:
    assert group_of(replace(PATIENT, covariates={"age": years}), "age") == band


@pytest.mark.parametrize(
    ("tesla", "group"),
    [(1.5, "1.5"), (1.494, "1.5"), (3, "3.0"), (2.89362, "3.0"), (0.55, "other"), (7, "other")],
)
def test_field_strengths_as_headers_write_them(tesla: float, group: str) -> None:
    assert group_of(replace(PATIENT, field_strength_t=tesla), "field_strength_t") == group


def test_sex() -> None:
    assert group_of(replace(PATIENT, covariates={"sex": 1.0}), "sex") == "male"
    assert group_of(replace(PATIENT, covariates={"sex": 0.0}), "sex") == "female"
    assert group_of(PATIENT, "sex") == "unknown"


def test_a_patient_without_images_has_no_scanner(make_patient: Callable[..., Patient]) -> None:
    tabular = replace(make_patient(1, shape=(0, 1, 1)), vendor="other", field_strength_t=math.nan)
    assert group_of(tabular, "vendor") == group_of(tabular, "field_strength_t") == "unknown"
