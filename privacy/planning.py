"""Before anything is spent: what a policy costs in epsilon, what it may cost in accuracy, and what
it does not protect.

Epsilon comes from the accountant. Accuracy comes from measurements alone (``utility.json``, which a
benchmark writes); where nothing was measured nothing is said.
"""

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

from pydantic import Field

from privacy.accountant import Spend, epsilon, renyi_epsilon
from privacy.policy import PrivacyPolicy
from protocol.documents import decode
from protocol.yaml_files import Frozen, parse

__all__ = [
    "NOT_PROTECTED",
    "PROTECTED",
    "CohortRow",
    "Utility",
    "UtilityPoint",
    "answers",
    "by_cohort",
    "by_noise",
    "noise_needed",
    "read_utility",
    "rounds_left",
    "training",
]

MAX_NOISE = 1e4
# Noise is told to three digits; a search that ends within half a per cent is fine enough.
NOISE_TOLERANCE = 0.005

PROTECTED = (
    "One patient of this hospital, with all records of that patient: whoever sees everything that "
    "was released, and knows every other patient, can tell little better than before whether this "
    "one was among them. Epsilon says how little, up to a failure of probability delta."
)
NOT_PROTECTED = (
    "A patient who is known to two hospitals: what both spent adds up, and neither ledger knows of "
    "the other. The same holds for two site directories over the same patients.",
    "That this hospital takes part, in which studies and rounds, and the numbers of patients that "
    "it tells as they are.",
    "Statistics that are answered without noise: their small cells are withheld, which is no "
    "differential privacy.",
    "The evaluation on the held-out patients, unless it is noised and charged as well.",
    "What is true of all such patients: a finding concerns those who never took part just as much.",
    "The files on the hospital's own disk: images, tables, cache, masks, models, logs and the "
    "ledger. Access to that disk is the hospital's to guard.",
    "How long an answer takes, how large it is, and whether it fails.",
    "A budget whose ledger and head file are both put back from an older backup at once.",
)


# --- epsilon --------------------------------------------------------------------------------------


def training(policy: PrivacyPolicy, rounds: int) -> Spend:
    """Return what one stage of ``rounds`` rounds spends under a policy."""
    return Spend(policy.noise_multiplier, policy.sampling_rate, rounds * policy.steps_per_round)


def answers(policy: PrivacyPolicy, count: int) -> list[Spend]:
    """Return what ``count`` noised vectors of sums (survey, metrics) spend; empty for none."""
    return [Spend(policy.statistics_noise, 1.0, count)] if count else []


def by_noise(
    policy: PrivacyPolicy, noises: Sequence[float], rounds: Sequence[int]
) -> list[tuple[float, list[float]]]:
    """Return for each noise multiplier the epsilon of one stage after each number of rounds."""
    table = []
    for noise in noises:
        changed = policy.model_copy(update={"noise_multiplier": noise})
        table.append((noise, [epsilon([training(changed, n)], policy.delta) for n in rounds]))
    return table


class CohortRow(NamedTuple):
    """One stage at a hospital of another size.

    Attributes
    ----------
    per_step : float
        Patients in a step on average, at the policy's sampling rate.
    noise : float
        Standard deviation of the noise in each coordinate of a step's average gradient, as a share
        of the clip norm: ``sigma / per_step``. Epsilon is the same at every size.
    sampling_rate, epsilon : float
        If instead a step took as many patients as it does here.
    """

    num_patients: int
    per_step: float
    noise: float
    sampling_rate: float
    epsilon: float


def by_cohort(
    policy: PrivacyPolicy, num_patients: int, sizes: Sequence[int], rounds: int
) -> list[CohortRow]:
    """Return what the number of patients changes, beside a hospital of ``num_patients``."""
    here = num_patients * policy.sampling_rate
    rows = []
    for size in sorted({*sizes, num_patients}):
        rate = min(1.0, here / size)
        changed = policy.model_copy(update={"sampling_rate": rate})
        spent = epsilon([training(changed, rounds)], policy.delta)
        per_step = size * policy.sampling_rate
        rows.append(CohortRow(size, per_step, policy.noise_multiplier / per_step, rate, spent))
    return rows


def noise_needed(
    policy: PrivacyPolicy, target_epsilon: float, rounds: int, beside: Sequence[Spend] = ()
) -> float | None:
    """Return the least noise multiplier, to three digits, that keeps training within a target.

    Parameters
    ----------
    beside : sequence of Spend
        What is spent besides the training, for example on statistics.

    Returns
    -------
    float or None
        ``None`` if what is spent besides is above the target already, or no noise up to 10,000
        suffices.
    """

    def within(noise: float) -> bool:
        spend = Spend(noise, policy.sampling_rate, rounds * policy.steps_per_round)
        history = [*beside, spend]
        # Renyi DP is the quicker bound, and often enough.
        quick = renyi_epsilon(history, policy.delta) <= target_epsilon
        return quick or epsilon(history, policy.delta) <= target_epsilon

    if not within(MAX_NOISE):
        return None
    low, high = 0.01, 1.0
    while not within(high):
        low, high = high, min(2 * high, MAX_NOISE)
    while high / low > 1 + NOISE_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if within(middle) else (middle, high)
    # Rounded up: more noise is never less private.
    digits = 10.0 ** (math.floor(math.log10(high)) - 2)
    return math.ceil(high / digits - 1e-9) * digits


def rounds_left(history: Sequence[Spend], spend: Spend, cap: float, delta: float, most: int) -> int:
    """Return how many more times ``spend`` fits under a cap after a history, at most ``most``."""

    def fits(count: int) -> bool:
        more = Spend(spend.noise_multiplier, spend.sampling_rate, count * spend.num_steps)
        return epsilon([*history, more], delta) <= cap

    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


# --- accuracy -------------------------------------------------------------------------------------


class UtilityPoint(Frozen):
    """A model trained with noise beside the same trained without, on phantom hospitals.

    Attributes
    ----------
    stage : str
        ``"segment"`` or ``"prognosis"``.
    metric : str
        What was measured at patients that no hospital trained on, for example ``"dice"`` or
        ``"c_index"``; higher is better.
    num_patients : int
        Patients of each training hospital.
    epsilon, delta : float
        What a hospital's training had spent.
    value, value_without : float
        Mean of the metric with and without noise.
    num_seeds : int
        Repetitions that the means are over.
    """

    stage: Literal["segment", "prognosis"]
    metric: str = Field(pattern=r"^[a-z_]{1,32}$")
    num_patients: int = Field(ge=1)
    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    value: float = Field(allow_inf_nan=False)
    value_without: float = Field(allow_inf_nan=False)
    num_seeds: int = Field(ge=1)


class Utility(Frozen):
    """Measured points, and the script that measured them."""

    source: str
    points: tuple[UtilityPoint, ...]


def read_utility() -> Utility:
    """Return what was measured; without points as long as nothing was."""
    text = files("privacy").joinpath("utility.json").read_text(encoding="utf-8")
    return parse(Utility, decode(text, "utility.json"), "utility.json")
