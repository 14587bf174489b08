"""What a consortium's patients can and cannot answer, said before anything is trained.

From summed counts only: of a survey's results, or given as numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.results import Hospital
from server.sample_size import (
    Z95,
    Followed,
    c_index_se,
    expected_shrinkage,
    largest_r2,
    patients_for_optimism,
    patients_for_overall_risk,
    patients_for_shrinkage,
)

__all__ = ["Aims", "Plan", "followed_by_role", "make_plan"]

# A share of the largest R-squared, for when nobody has fitted a model yet (Riley et al. 2019).
USUAL_SHARE = 0.15
MIN_EXTERNAL_EVENTS = 100
USEFUL_HALF_WIDTH = 0.05


@dataclass(frozen=True)
class Aims:
    """What is to be built and found.

    Attributes
    ----------
    parameters : int
        Coefficients the model estimates: a covariate with three categories has two, a missingness
        indicator counts.
    horizon_years : float
        When the risk is predicted for.
    r2 : float or None
        Cox-Snell R-squared expected of the model in new patients; ``None`` takes 15 % of the
        largest possible.
    c_index : float
        Expected at external hospitals.
    """

    parameters: int
    horizon_years: float = 5.0
    r2: float | None = None
    c_index: float = 0.7


@dataclass(frozen=True)
class Plan:
    """The planner's figures.

    Attributes
    ----------
    events_per_parameter : float
        Of the training hospitals.
    r2, largest_r2 : float
        Cox-Snell R-squared that was planned with, and the largest possible.
    patients_needed : dict of str to int
        By criterion.
    patients, events : int
        Of the training hospitals.
    events_needed : int
        Events among the largest of ``patients_needed``, at the same rate and follow-up.
    shrinkage : float
        To expect of the patients there are, in (0, 1).
    c_interval : tuple of float or None
        95 % interval of the external C-index, were it as expected; ``None`` without an external
        event.
    external_events : int
    sentences : tuple of str
        The answer in words, what cannot be answered first.
    answers : bool
        Whether the study can do what it is for.
    """

    events_per_parameter: float
    r2: float
    largest_r2: float
    patients_needed: dict[str, int]
    patients: int
    events: int
    events_needed: int
    shrinkage: float
    c_interval: tuple[float, float] | None
    external_events: int
    sentences: tuple[str, ...]
    answers: bool


def make_plan(training: Followed, external: Sequence[Followed], aims: Aims) -> Plan:
    """Hold the criteria against the counts.

    Parameters
    ----------
    training : Followed
        All patients the model is fitted to.
    external : sequence of Followed
        Each external hospital; pairs are compared within a hospital.

    Raises
    ------
    ConfigError
        If a count or an aim is impossible, or no training patient had the event.
    """
    largest = largest_r2(training)
    r2 = USUAL_SHARE * largest if aims.r2 is None else aims.r2
    needed = {
        "shrinkage of at most 10 %": patients_for_shrinkage(aims.parameters, r2),
        "optimism of at most 0.05 in R-squared": patients_for_optimism(
            aims.parameters, r2, largest
        ),
        "average risk to within 0.05": patients_for_overall_risk(training, aims.horizon_years),
    }
    share = training.events / training.patients
    shrinkage = expected_shrinkage(training.patients, aims.parameters, r2)
    judged = [hospital for hospital in external if hospital.events]
    interval = None
    if judged:
        half = Z95 * c_index_se(judged, aims.c_index)
        interval = (max(0.0, aims.c_index - half), min(1.0, aims.c_index + half))
    most = max(needed.values())
    external_events = sum(hospital.events for hospital in external)
    sentences = (
        *_development(training, aims, needed, shrinkage, r2),
        *_validation(aims, external_events, interval),
    )
    precise = interval is None or interval[1] - interval[0] <= 2 * USEFUL_HALF_WIDTH
    return Plan(
        events_per_parameter=training.events / aims.parameters,
        r2=r2,
        largest_r2=largest,
        patients_needed=needed,
        patients=training.patients,
        events=training.events,
        events_needed=math.ceil(most * share),
        shrinkage=shrinkage,
        c_interval=interval,
        external_events=external_events,
        sentences=sentences,
        answers=training.patients >= most and precise and external_events >= MIN_EXTERNAL_EVENTS,
    )


def _development(
    training: Followed, aims: Aims, needed: dict[str, int], shrinkage: float, r2: float
) -> list[str]:
    most = max(needed.values())
    per = training.events / aims.parameters
    size = (
        f"{training.patients} patients with {training.events} events, {per:.1f} events per "
        f"parameter for {aims.parameters} parameters"
    )
    if training.patients >= most:
        return [
            f"The training hospitals have {size}: enough to develop the model ({most} patients are "
            "needed)."
        ]
    affordable = _affordable(training, r2)
    advice = (
        f"at most {affordable} parameters could be fitted"
        if affordable
        else "not even one parameter could be fitted"
    )
    return [
        f"This study cannot develop the model it asks for: the training hospitals have {size}, and "
        f"{most} patients are needed; with these patients {advice}, so add hospitals or follow-up "
        "or ask for less.",
        f"Fitted all the same, its coefficients should be expected to need shrinking to "
        f"{shrinkage:.2f} of what is estimated.",
    ]


def _affordable(training: Followed, r2: float) -> int:
    # The formula is linear in the number of parameters.
    one = patients_for_shrinkage(1000, r2) / 1000
    return int(training.patients / one)


def _validation(aims: Aims, events: int, interval: tuple[float, float] | None) -> list[str]:
    if interval is None:
        return [
            "This study cannot judge the model elsewhere: no external hospital has an event, so "
            "name external hospitals or wait for follow-up."
        ]
    low, high = interval
    wide = high - low > 2 * USEFUL_HALF_WIDTH
    few = events < MIN_EXTERNAL_EVENTS
    found = (
        f"an external C-index of {aims.c_index:.2f} would come with a 95 % interval of "
        f"{low:.2f} to {high:.2f} from {events} events"
    )
    if not wide and not few:
        return [f"The external hospitals are enough: {found}."]
    why = "too wide to tell a useful model from a useless one" if low <= 0.6 else "too wide"
    reason = why if wide else f"precise, but calibration needs {MIN_EXTERNAL_EVENTS} events"
    return [
        f"This study cannot answer how good the model is elsewhere: {found}, {reason}; add "
        "external hospitals or follow-up."
    ]


def followed_by_role(
    hospitals: Sequence[Hospital],
) -> tuple[list[Followed], list[Followed], int]:
    """Return the training and the external hospitals of a survey, and how many withheld counts.

    A hospital that withheld its patients, events or follow-up as small is left out: what is
    planned with is then a few patients too low, never too high.
    """
    by_role: dict[str, list[Followed]] = {"train": [], "external": []}
    withheld = 0
    for hospital in hospitals:
        if not hospital.patients or hospital.events is None or not hospital.person_years:
            withheld += 1
            continue
        by_role[hospital.role].append(
            Followed(hospital.patients, hospital.events, hospital.person_years)
        )
    return by_role["train"], by_role["external"], withheld
