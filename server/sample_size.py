"""How many patients a prognostic model needs: published criteria, and the spread of a C-index.

Development: R. D. Riley et al., Stat Med 2019, 38:1276 (time-to-event outcomes). Symbols: p
parameters, n patients, R2 the Cox-Snell R-squared that is expected of the model in new patients, S
the expected uniform shrinkage of its coefficients, lambda the event rate a year.

External validation: the spread of Harrell's C. Ranks within successive risk sets are independent
and uniform when a score tells nothing (Renyi), so ``Var(C) = sum (R_i^2 - 1) / 12 / (sum (R_i -
1))^2`` over the events i with R_i patients at risk, that is ``(1 + cv^2) / (12 E)`` with cv the
coefficient of variation of the R_i. Away from C = 1/2 the 1/12 becomes the probability that an
event outranks two others, less C^2, as in J. A. Hanley & B. J. McNeil, Radiology 1982, 143:29; of
normally distributed scores it is ``v(C) = C (1 - C) - 2 T(a, 1 / sqrt 3)``, a the normal quantile
of C, T Owen's function. (Their own expression, of exponential scores, is a quarter too wide at .8.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, owens_t

from protocol.errors import ConfigError
from protocol.stats import LifeTable

__all__ = [
    "Z95",
    "Followed",
    "c_index_se",
    "expected_shrinkage",
    "largest_r2",
    "patients_for_optimism",
    "patients_for_overall_risk",
    "patients_for_shrinkage",
    "risk_set_variation",
]

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Followed:
    """Patients of one hospital, or of several together.

    Attributes
    ----------
    patients, events : int
        At least 1 patient, events from 0 to patients.
    person_years : float
        Time under observation, > 0.
    """

    patients: int
    events: int
    person_years: float

    def __post_init__(self) -> None:
        if not 0 <= self.events <= self.patients or self.patients < 1:
            raise ConfigError(
                f"{self.events} events in {self.patients} patients cannot be; give at least one "
                "patient, and no more events than patients."
            )
        if not (math.isfinite(self.person_years) and self.person_years > 0):
            raise ConfigError(
                f"{self.person_years:g} person-years cannot be; give the time under observation, "
                "above 0."
            )

    @property
    def rate(self) -> float:
        """Events a person-year, lambda."""
        return self.events / self.person_years

    @property
    def mean_years(self) -> float:
        return self.person_years / self.patients


def largest_r2(followed: Followed) -> float:
    """Return the largest Cox-Snell R-squared any model can have, in (0, 1).

    ``1 - exp(2 l0 / n)``, ``l0 = E ln(E / n) - E``: the log-likelihood of one constant hazard, with
    time counted in mean follow-ups (the paper's convention).

    Raises
    ------
    ConfigError
        If there is no event.
    """
    if not followed.events:
        raise ConfigError("There is no event yet; nothing can be planned before the first.")
    share = followed.events / followed.patients
    return -math.expm1(2 * share * (math.log(share) - 1))


def _check(parameters: int, r2: float, ceiling: float = 1.0) -> None:
    if parameters < 1:
        raise ConfigError(f"A model of {parameters} parameters cannot be planned; give 1 or more.")
    if not 0 < r2 < ceiling:
        raise ConfigError(
            f"A Cox-Snell R-squared of {r2:g} cannot be reached; give one above 0 and below "
            f"{ceiling:.3f}."
        )


def _needed(parameters: int, r2: float, shrinkage: float) -> float:
    return parameters / ((shrinkage - 1) * math.log1p(-r2 / shrinkage))


def patients_for_shrinkage(parameters: int, r2: float, shrinkage: float = 0.9) -> int:
    """Return the patients at which coefficients need shrinking by no more than ``1 - shrinkage``.

    ``n = p / ((S - 1) ln(1 - R2 / S))``, eq. 11.

    Parameters
    ----------
    r2 : float
        In (0, ``shrinkage``).
    shrinkage : float
        In (0, 1); 0.9 is a tenth.
    """
    if not 0 < shrinkage < 1:
        raise ConfigError(f"A shrinkage of {shrinkage:g} cannot be planned; give one in (0, 1).")
    _check(parameters, r2, shrinkage)
    return math.ceil(_needed(parameters, r2, shrinkage))


def patients_for_optimism(
    parameters: int, r2: float, largest: float, difference: float = 0.05
) -> int:
    """Return the patients at which apparent and true R-squared differ by ``difference`` or less.

    The difference is one of Nagelkerke's R-squared (``R2 / largest``): the shrinkage formula with
    ``S = R2 / (R2 + difference * largest)``, eq. 12.
    """
    _check(parameters, r2, largest)
    return math.ceil(_needed(parameters, r2, r2 / (r2 + difference * largest)))


def patients_for_overall_risk(
    followed: Followed, horizon_years: float, margin: float = 0.05
) -> int:
    """Return the patients at which the average risk at the horizon is known to ``margin``.

    With one constant hazard the 95 % interval of the risk ``1 - exp(-lambda t)`` has the limits
    ``1 - exp(-(lambda -+ 1.96 sqrt(lambda / T)) t)`` for T person-years; the lower one is the
    farther, which gives the T that is needed in closed form.
    """
    if horizon_years <= 0:
        raise ConfigError(f"A horizon of {horizon_years:g} years cannot be; give one above 0.")
    if not followed.events:
        raise ConfigError("There is no event yet; nothing can be planned before the first.")
    allowed = math.log1p(margin * math.exp(followed.rate * horizon_years)) / horizon_years
    person_years = followed.rate * (Z95 / allowed) ** 2
    return math.ceil(person_years / followed.mean_years)


def expected_shrinkage(patients: int, parameters: int, r2: float) -> float:
    """Return the S to expect of so many patients, by bisection of the shrinkage formula.

    Near 1 coefficients may be used as estimated; at 0.5 half of what they say is noise.
    """
    _check(parameters, r2)
    low, high = r2, 1.0
    # The formula rises from 0 (S = R2) to infinity (S = 1).
    for _ in range(100):
        middle = (low + high) / 2
        enough = _needed(parameters, r2, middle) >= patients if middle < 1 else True
        low, high = (low, middle) if enough else (middle, high)
    return (low + high) / 2


def risk_set_variation(table: LifeTable) -> float:
    """Return cv^2 of the numbers at risk at the events of a life table, >= 0."""
    at_risk = table.at_risk.sum(axis=0).astype(np.float64)
    events = table.events.sum(axis=0).astype(np.float64)
    # An event of an interval finds, on average, those at risk at its middle.
    midway = (at_risk[:-1] + at_risk[1:]) / 2
    total = float(events.sum())
    if total == 0 or not float(events @ midway):
        return 0.0
    mean = float(events @ midway) / total
    return float(events @ (midway - mean) ** 2) / total / mean**2


def c_index_se(
    hospitals: Sequence[Followed], c_index: float, variation: Sequence[float] | None = None
) -> float:
    """Return the standard error to expect of Harrell's C, pairs compared within hospitals.

    ``Var = (1 + cv^2) v(C) / E`` in one hospital. Over hospitals the pairs add: ``sum P_h^2 Var_h /
    (sum P_h)^2`` with ``P_h`` about ``E_h`` times the mean number at risk. Within 15 % for 30
    events or more (test: simulation).

    Parameters
    ----------
    hospitals : sequence of Followed
        Those whose patients are compared; hospitals without an event add nothing.
    c_index : float
        What is expected, in (0, 1).
    variation : sequence of float, optional
        cv^2 of each hospital (`risk_set_variation`). By default that of follow-up which ends for
        all at one time: numbers at risk fall from n to n - E.

    Raises
    ------
    ConfigError
        If C is outside (0, 1) or there is no event.
    """
    if not 0 < c_index < 1:
        raise ConfigError(f"A C-index of {c_index:g} cannot be planned; give one in (0, 1).")
    pairs, spread = 0.0, 0.0
    ranks = c_index * (1 - c_index) - 2 * float(owens_t(ndtri(c_index), 1 / math.sqrt(3)))
    for index, hospital in enumerate(hospitals):
        if not hospital.events:
            continue
        share = hospital.events / hospital.patients
        even = share**2 / (12 * (1 - share / 2) ** 2)
        cv2 = even if variation is None else variation[index]
        compared = hospital.events * hospital.patients * (1 - share / 2)
        pairs += compared
        spread += compared**2 * (1 + cv2) * ranks / hospital.events
    if not pairs:
        raise ConfigError("There is no event to judge a model by; add follow-up or hospitals.")
    return math.sqrt(spread) / pairs
