"""What the survey answers, and what it keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.cohort import Cohort, Patient, Refusal
from client.hospital import Hospital
from client.site import SiteConfig
from client.site_sections import Images
from client.survey import survey
from protocol.config import Study
from protocol.payload import Question
from protocol.stats import LifeTable, Moments

STUDY = Study.model_validate(
    {
        "name": "s",
        "seed": 1,
        "hospitals": {"train": ["alder"]},
        "prognosis": {"covariates": ["age", "bmi"]},
    }
)


def hospital(patients: list[Patient], min_cell: int) -> Hospital:
    cohort = Cohort("alder", tuple(patients), (Refusal("series", "localizer", 3),), "f" * 64)
    images = Images(format="dicom", path="dicom")
    config = SiteConfig(name="alder", images=images, min_cell=min_cell)
    half = len(patients) // 2
    return Hospital(Path(), config, (cohort,), tuple(patients[:half]), tuple(patients[half:]))


@pytest.fixture
def patients(make_patient: Callable[..., Patient]) -> list[Patient]:
    rng = np.random.default_rng(0)
    return [
        replace(
            make_patient(i, masks=i % 2 == 0, event=int(i < 12)),
            months=float(rng.uniform(1, 80)),
            vendor="ge" if i < 3 else "siemens",
            covariates={"age": float(rng.normal(60, 10)), "bmi": np.nan},
        )
        for i in range(60)
    ]


def ask(patients: list[Patient], min_cell: int = 5) -> dict[str, Any]:
    return survey(hospital(patients, min_cell), Question(STUDY, "survey", {}, None)).document


def test_counts_are_those_of_the_cohort(patients: list[Patient]) -> None:
    answer = ask(patients, min_cell=1)
    assert (answer["patients"], answer["events"]) == (60, 12)
    assert answer["vendors"] == {"ge": 3, "siemens": 57}
    assert answer["can_train"] == {"segment": 15, "prognosis": 30}
    years = sum(patient.months for patient in patients) / 12
    assert answer["person_years"] == pytest.approx(years)
    table = LifeTable.from_dict(answer["life_table"])
    assert table.num_patients.tolist() == [30]


def test_scales_come_from_training_patients_alone(patients: list[Patient]) -> None:
    moments = Moments.from_dict(ask(patients, min_cell=1)["covariates"])
    ages = [patient.covariates["age"] for patient in patients[:30]]
    assert moments.mean[0] == pytest.approx(np.mean(ages))
    assert moments.n.tolist() == [30, 0]


def test_small_counts_stay_at_the_hospital(patients: list[Patient]) -> None:
    answer = ask(patients)
    # With 3 GE patients withheld, the only other vendor would give them away.
    assert answer["vendors"] == {"ge": None, "siemens": None}
    assert answer["refused"] == {"series: localizer": None}
    few = ask(patients[:4])
    assert few["patients"] is None
    assert few["events"] is None
    assert few["person_years"] is None
    assert few["median_followup_months"] is None


def test_no_follow_up_time_of_a_patient_is_sent(patients: list[Patient]) -> None:
    answer = ask(patients)
    assert answer["median_followup_months"] % 6 == 0


def test_a_hospital_without_outcomes_answers_too(patients: list[Patient]) -> None:
    unknown = [replace(patient, months=np.nan, event=-1) for patient in patients]
    answer = ask(unknown)
    assert answer["events"] == 0
    assert answer["person_years"] is None
    assert answer["can_train"]["prognosis"] == 0
