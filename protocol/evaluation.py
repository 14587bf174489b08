"""What the centre and the hospitals agree on before survival predictions are judged.

All of it is settled on the training patients' scores, or is a curve of all hospitals together; no
value belongs to a patient.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from protocol.documents import check_keys
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.censoring import CensoringCurve, finite_numbers
from protocol.stats.score_table import MAX_TIME_BINS
from protocol.stats.sums import require

__all__ = [
    "ROLES",
    "SCORE_BINS",
    "SMALLEST_G",
    "AskedCurve",
    "EvaluationPlan",
    "Role",
    "bounded_weights",
    "evaluation_grid",
    "group_names",
    "horizon_key",
]

Role = Literal["train", "external"]
ROLES: tuple[Role, ...] = ("train", "external")
MAX_CURVES = 48
# Of the histograms of predicted risk in [0, 1], from which cut points are agreed.
SCORE_BINS = 200
GROUP_NAMES = {2: ("low", "high"), 3: ("low", "middle", "high")}
# A weight 1 / G above 50 lets one patient outweigh a small hospital, in a figure as in its privacy.
SMALLEST_G = 0.02
KEYS = frozenset(
    {
        "grid_months",
        "horizons_months",
        "score_edges",
        "thresholds",
        "baseline_months",
        "baseline_hazard",
        "censoring",
        "curves",
    }
)


@dataclass(frozen=True)
class AskedCurve:
    """A calibration curve of one role's hospitals at one horizon."""

    role: Role
    horizon_months: float
    curve: CalibrationCurve

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        place = {"role": self.role, "horizon_months": self.horizon_months}
        return {**place, "curve": self.curve.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote; raises a `PayloadError` where it is something else."""
        require(isinstance(values, dict), "A calibration curve that is asked must be an object.")
        check_keys(values, frozenset({"role", "horizon_months", "curve"}), "A curve that is asked")
        require(values["role"] in ROLES, "The role of a curve that is asked is train or external.")
        (horizon,) = finite_numbers([values["horizon_months"]], "The horizon of a curve")
        return cls(values["role"], horizon, CalibrationCurve.from_dict(values["curve"]))


@dataclass(frozen=True)
class EvaluationPlan:
    """How the hospitals judge one survival network.

    Attributes
    ----------
    grid_months : tuple of float
        Increasing, from 0 to the end of the network's own grid, at most 120 intervals; holds every
        horizon.
    horizons_months : tuple of float
        When AUC, Brier score and calibration are looked at.
    score_edges : tuple of float
        Inner cut points of the predicted risk by the grid's end.
    thresholds : tuple of float
        Points of the decision curve.
    baseline_months, baseline_hazard : tuple of float
        Cumulative baseline hazard of the Cox regression, a step function; empty without one.
    censoring : dict of str to CensoringCurve
        By role; empty in the first pass.
    curves : tuple of AskedCurve
        Calibration curves whose sums are asked for.
    """

    grid_months: tuple[float, ...]
    horizons_months: tuple[float, ...]
    score_edges: tuple[float, ...]
    thresholds: tuple[float, ...]
    baseline_months: tuple[float, ...] = ()
    baseline_hazard: tuple[float, ...] = ()
    censoring: dict[str, CensoringCurve] = field(default_factory=dict)
    curves: tuple[AskedCurve, ...] = ()

    def __post_init__(self) -> None:
        inside = set(self.horizons_months) <= set(self.grid_months[1:])
        require(inside and len(self.horizons_months) > 0, "A horizon is no point of the grid.")
        same = len(self.baseline_months) == len(self.baseline_hazard)
        require(same, "The baseline hazard needs one value a month.")
        require(set(self.censoring) <= set(ROLES), "G is given for train and external only.")
        require(len(self.curves) <= MAX_CURVES, f"At most {MAX_CURVES} curves are asked at once.")

    @property
    def end_months(self) -> float:
        """The end of the grid."""
        return self.grid_months[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return what travels in ``agreed["evaluation"]``."""
        plain = {key: list(value) for key, value in asdict(self).items() if key not in NESTED}
        curves = {role: curve.to_dict() for role, curve in self.censoring.items()}
        return {**plain, "censoring": curves, "curves": [each.to_dict() for each in self.curves]}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
            If a key is missing or unknown or a value is not of its kind.
        """
        require(isinstance(values, dict), "The plan of the evaluation must be an object.")
        check_keys(values, KEYS, "The plan of the evaluation")
        plain = {
            key: finite_numbers(values[key], f"The evaluation's {key}") for key in KEYS - NESTED
        }
        nested = isinstance(values["censoring"], dict) and isinstance(values["curves"], list)
        require(nested, "The evaluation's censoring must be an object and its curves a list.")
        censoring = {
            role: CensoringCurve.from_dict(curve) for role, curve in values["censoring"].items()
        }
        curves = tuple(AskedCurve.from_dict(each) for each in values["curves"])
        return cls(**plain, censoring=censoring, curves=curves)


NESTED = frozenset({"censoring", "curves"})


def evaluation_grid(
    cuts_months: tuple[float, ...], horizons_months: tuple[float, ...]
) -> tuple[float, ...]:
    """Return 0, every cut and horizon, and between them months, as many as 120 intervals hold."""
    fixed = {0.0, *cuts_months, *horizons_months}
    end = int(np.ceil(max(fixed)))
    for step in range(1, end + 2):
        points = fixed | {float(month) for month in range(0, end, step)}
        if len(points) <= MAX_TIME_BINS + 1:
            break
    return tuple(sorted(points))


def bounded_weights(curve: CensoringCurve) -> CensoringCurve:
    """Return G with what lies between 0 and .02 raised to .02: weights truncated at 50."""
    values = (value if value == 0 else max(value, SMALLEST_G) for value in curve.survival)
    return CensoringCurve(curve.grid_months, tuple(values))


def horizon_key(months: float) -> str:
    """Return the name of a horizon in documents and results, e.g. ``"60"``."""
    return f"{months:g}"


def group_names(num_groups: int) -> tuple[str, ...]:
    """Return what groups of predicted risk are called, lowest first."""
    return GROUP_NAMES.get(num_groups) or tuple(f"group {k + 1}" for k in range(num_groups))
