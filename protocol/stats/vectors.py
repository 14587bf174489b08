"""A mergeable statistic as one vector, where merging is adding, so that a secure sum can carry it.

The fields that count or sum (``int``, ``float``, arrays, and the sums inside) stand one after the
other; those that say what is counted (tuples, and the numbers a class names as labels) do not
travel: everybody knows them from the question. It serves the classes of `LABELS`, whose ``merge``
adds all their numbers; the others have a form that does (`protocol.stats.additive`).

Each number is rounded to its own step. Counts are whole. A float gets as many bits as leave room
for the largest sum that can be expected: 36 below the point unless `STEP_BITS` says otherwise,
which in words of 64 bits lets a sum of H hospitals reach ``2^27 / H``. The error of a sum is ``H``
half steps at most, and of anything computed from it as much again times its slope; against the
sampling error of a patient, which is of the order of 1 in the same units, that is nothing.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from protocol.stats.agreement_powers import AgreementPowers
from protocol.stats.brier import BrierSums
from protocol.stats.calibration import Calibration
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.concordance import PairCounts
from protocol.stats.confusion import ConfusionSums
from protocol.stats.cox import CoxSums
from protocol.stats.cox_grid import CoxGridSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.cumulative_incidence import CauseTable
from protocol.stats.d_calibration import DCalibration
from protocol.stats.gradient_sums import GradientSums
from protocol.stats.histogram import Histogram
from protocol.stats.lifetable import LifeTable
from protocol.stats.missingness import Missingness
from protocol.stats.normal_equations import NormalEquations
from protocol.stats.power_sums import POWER_STEP_BITS, PowerSums
from protocol.stats.risk_sums import RiskSums
from protocol.stats.score_counts import ScoreCounts
from protocol.stats.sums import FloatArray, IntArray, Sums, require
from protocol.stats.tally import Tally
from protocol.stats.weighted_pairs import WeightedPairs

__all__ = [
    "LABELS",
    "SATURATED",
    "STEP_BITS",
    "from_vector",
    "same_labels",
    "step_bits",
    "to_vector",
]

NONE: frozenset[str] = frozenset()
# By class, the numbers that are equal at all hospitals and not added. The span over which counts
# were moved together is one of them, as under a mask none are.
LABELS: dict[type[Sums], frozenset[str]] = {
    AgreementPowers: NONE,
    BrierSums: NONE,
    Calibration: NONE,
    CalibrationErrors: NONE,
    CalibrationStep: frozenset({"horizon_months"}),
    CauseTable: NONE,
    ConfusionSums: NONE,
    CoxGridSums: frozenset({"beta", "coarse_months"}),
    CoxResiduals: frozenset({"beta"}),
    CoxSums: frozenset({"beta"}),
    DCalibration: NONE,
    GradientSums: NONE,
    Histogram: frozenset({"low", "high"}),
    LifeTable: frozenset({"coarse_months"}),
    Missingness: NONE,
    NormalEquations: NONE,
    PairCounts: frozenset({"tau_months"}),
    PowerSums: NONE,
    RiskSums: NONE,
    ScoreCounts: NONE,
    Tally: NONE,
    WeightedPairs: frozenset({"tau_months"}),
}
UNCHECKED = frozenset({"coarse_months"})
# Bits below the point of a class's floats, where 36 are too many or must not be fewer. Weights
# 1 / G^2 reach 2,500 a pair, and there are as many pairs as patients squared; weighted squares of a
# logit reach 10^6 a patient; counts and person-years are large and need no fraction to speak of.
STEP_BITS: dict[type[Sums], int] = {
    AgreementPowers: 30,
    BrierSums: 30,
    Calibration: 36,
    CalibrationErrors: 36,
    CalibrationStep: 30,
    DCalibration: 36,
    Histogram: 20,
    LifeTable: 20,
    PowerSums: POWER_STEP_BITS,
    ScoreCounts: 20,
    Tally: 20,
    WeightedPairs: 20,
}
# A step of Newton's method may go so far that exp overflows any grid. All that is wanted of such
# sums is that their likelihood is too low to be accepted, so they are cut at the grid's end.
SATURATED: frozenset[type[Sums]] = frozenset({CalibrationStep})
S = TypeVar("S", bound=Sums)


def _fields(sums: Sums) -> Iterator[tuple[str, Any, bool]]:
    """Yield every field's name, its value, and whether it is added."""
    labels = LABELS.get(type(sums))
    require(
        labels is not None, f"{type(sums).__name__} cannot travel in a secure sum; ask it plainly."
    )
    for field in fields(sums):  # type: ignore[arg-type]
        value = getattr(sums, field.name)
        added = not isinstance(value, tuple) and field.name not in (labels or NONE)
        yield field.name, value, added


def _summed(sums: Sums) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value, added in _fields(sums) if added)


def same_labels(sums: Sums, other: Sums) -> bool:
    """Whether two statistics count the same things, so that their vectors may be added."""
    if type(sums) is not type(other):
        return False
    for (name, mine, added), (_, theirs, _) in zip(_fields(sums), _fields(other), strict=True):
        if isinstance(mine, Sums):
            same = same_labels(mine, theirs)
        elif added:
            # An empty table is read from its list without its second axis.
            same = np.shape(mine) == np.shape(theirs) or np.size(mine) == np.size(theirs) == 0
        else:
            same = name in UNCHECKED or bool(np.array_equal(mine, theirs))
        if not same:
            return False
    return True


def to_vector(sums: Sums) -> FloatArray:
    """Return all that is added, float64.

    Raises
    ------
    PayloadError
        If the class is not in `LABELS`.
    """
    parts = [
        to_vector(value) if isinstance(value, Sums) else np.asarray(value, np.float64).reshape(-1)
        for _, value in _summed(sums)
    ]
    return np.concatenate(parts)


def step_bits(sums: Sums, usual: int) -> IntArray:
    """Return the bits below the point of each entry of `to_vector`.

    Parameters
    ----------
    usual : int
        Of floats of classes that `STEP_BITS` does not name.
    """
    parts = []
    for _, value in _summed(sums):
        if isinstance(value, Sums):
            parts.append(step_bits(value, usual))
            continue
        array = np.asarray(value)
        bits = 0 if array.dtype.kind == "i" else STEP_BITS.get(type(sums), usual)
        parts.append(np.full(array.size, bits, np.int64))
    return np.concatenate(parts)


def from_vector(template: S, vector: FloatArray) -> S:
    """Return a statistic of the template's labels and the vector's numbers.

    Parameters
    ----------
    template : Sums
        E.g. that of no patient.

    Raises
    ------
    PayloadError
        If the length differs, or the numbers are not possible ones of the class.
    """
    values: dict[str, Any] = {}
    start = 0
    for name, value in _summed(template):
        size = to_vector(value).size if isinstance(value, Sums) else int(np.size(value))
        part = vector[start : start + size]
        require(part.size == size, "A secure sum is shorter than the statistic it stands for.")
        if isinstance(value, Sums):
            values[name] = from_vector(value, part)
        elif isinstance(value, np.ndarray):
            values[name] = np.rint(part) if value.dtype.kind == "i" else part
            values[name] = values[name].reshape(value.shape).astype(value.dtype)
        else:
            values[name] = type(value)(round(part[0]) if isinstance(value, int) else part[0])
        start += size
    require(start == vector.size, "A secure sum is longer than the statistic it stands for.")
    if isinstance(template, WeightedPairs):
        values = _at_least_its_parts(values)
    return type(template)(**vars(template) | values)


def _at_least_its_parts(pairs: dict[str, Any]) -> dict[str, Any]:
    """Take back what rounding did where no pair is discordant: the parts beyond their whole."""
    rows = np.array(pairs["replicates"])
    if rows.size:
        rows[:, 2] = np.maximum(rows[:, 2], rows[:, 0] + rows[:, 1])
    whole = max(pairs["comparable"], pairs["concordant"] + pairs["tied"])
    return pairs | {"comparable": whole, "replicates": rows}
