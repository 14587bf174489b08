"""Observed risk as a smooth function of predicted risk, fitted from sums over hospitals.

The outcome is the event by a horizon, with the complementary log-log link in which proportional
hazards are linear:

    P(T <= t | p) = 1 - exp(-exp(eta)),    eta = b_0 + b_1 x + ...,    x = log(-log(1 - p))

A censored patient's share is carried by the others through ``1 / G`` (`CensoringCurve`), so that
every term is one patient's and the Newton step needs only sums (`CalibrationStep`). ``b_1`` is the
calibration slope: below 1 the predictions are too extreme. With a restricted cubic spline in x the
curve bends (Austin, Harrell & van Klaveren, Stat Med 2020;39:2714 with weights for their hazard
model).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.documents import check_keys
from protocol.stats.censoring import finite_numbers
from protocol.stats.histogram import Histogram
from protocol.stats.sums import FloatArray, require

__all__ = ["FORMS", "CalibrationCurve", "cloglog", "spline_knots"]

FORMS = ("intercept", "linear", "spline")
SMALLEST = 1e-9  # predictions of exactly 0 or 1 would be infinite on the link's scale
QUANTILES = {
    3: (0.1, 0.5, 0.9),
    4: (0.05, 0.35, 0.65, 0.95),
    5: (0.05, 0.275, 0.5, 0.725, 0.95),
}


@dataclass(frozen=True)
class CalibrationCurve:
    """Coefficients of one curve.

    Attributes
    ----------
    form : str
        ``intercept`` (b_1 held at 1: calibration in the large), ``linear`` or ``spline``.
    knots : tuple of float
        Of the spline on the scale of x, at least 3, rising; empty otherwise.
    coefficients : tuple of float, length P
        1, 2, or the number of knots.
    """

    form: str
    knots: tuple[float, ...]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        require(self.form in FORMS, f"The form of a calibration curve is one of {FORMS}.")
        rising = bool((np.diff(np.asarray(self.knots)) > 0).all())
        enough = 3 <= len(self.knots) <= 10 if self.form == "spline" else not self.knots
        require(rising and enough, "A spline needs 3 to 10 rising knots, other forms none.")
        size = {"intercept": 1, "linear": 2, "spline": len(self.knots)}[self.form]
        finite = bool(np.isfinite(np.asarray(self.coefficients)).all())
        require(
            finite and len(self.coefficients) == size,
            f"A calibration curve of form {self.form} has {size} finite coefficients.",
        )

    @classmethod
    def ideal(cls, form: str, knots: tuple[float, ...] = ()) -> "CalibrationCurve":
        """Return the curve on which observed equals predicted."""
        size = {"intercept": 1, "linear": 2}.get(form, len(knots))
        ideal = [0.0] * size
        if form != "intercept" and size > 1:
            ideal[1] = 1.0
        return cls(form, tuple(knots), tuple(ideal))

    def to_dict(self) -> dict[str, Any]:
        """Return what the centre sends to every hospital for one Newton step."""
        lists = {"knots": list(self.knots), "coefficients": list(self.coefficients)}
        return {"form": self.form, **lists}

    @classmethod
    def from_dict(cls, values: Any) -> "CalibrationCurve":
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
            If a key is missing or unknown or a value is not of its kind.
        """
        require(isinstance(values, dict), "CalibrationCurve must be an object; send its to_dict().")
        check_keys(values, frozenset({"form", "knots", "coefficients"}), "CalibrationCurve")
        knots = finite_numbers(values["knots"], "CalibrationCurve.knots")
        coefficients = finite_numbers(values["coefficients"], "CalibrationCurve.coefficients")
        return cls(values["form"], knots, coefficients)

    def design(self, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the columns (N, P) and the offset (N,) of the linear predictor."""
        x = cloglog(predicted)
        ones = np.ones_like(x)
        if self.form == "intercept":
            return ones[:, None], x
        columns = [ones, x]
        if self.form == "spline":
            columns.extend(_restricted_cubic(x, self.knots))
        return np.column_stack(columns), np.zeros_like(x)

    def observed(self, predicted: npt.ArrayLike) -> FloatArray:
        """Return the curve's probability of the event for each predicted probability, (N,)."""
        columns, offset = self.design(predicted)
        eta = columns @ np.asarray(self.coefficients) + offset
        return -np.expm1(-np.exp(np.clip(eta, -30, 30)))


def cloglog(probability: npt.ArrayLike) -> FloatArray:
    """Return ``log(-log(1 - p))``; p is first drawn into [1e-9, 1 - 1e-9].

    Raises
    ------
    PayloadError
        If a probability lies outside [0, 1].
    """
    p = np.asarray(probability, np.float64).ravel()
    inside = bool(((p >= 0) & (p <= 1)).all())
    require(inside, "A predicted probability lies outside [0, 1].")
    return np.log(-np.log1p(-np.clip(p, SMALLEST, 1 - SMALLEST)))


def spline_knots(histogram: Histogram, number: int = 4) -> tuple[float, ...]:
    """Return knots on the scale of x at Harrell's quantiles of the summed predictions.

    Parameters
    ----------
    histogram : Histogram
        Predicted probabilities of all hospitals on [0, 1].
    number : int
        3, 4 or 5 (Harrell, Regression Modeling Strategies, 2nd ed., table 2.3).
    """
    require(number in QUANTILES, "Ask for 3, 4 or 5 knots.")
    knots = cloglog([histogram.quantile(q) for q in QUANTILES[number]])
    require(
        bool((np.diff(knots) > 1e-3).all()),
        "The predictions are too much alike for a spline; fit the form linear.",
    )
    return tuple(float(knot) for knot in knots)


def _restricted_cubic(x: FloatArray, knots: tuple[float, ...]) -> list[FloatArray]:
    # Linear beyond the outer knots; divided by their squared distance so that columns are of the
    # size of x (Harrell, op. cit., eq. 2.25).
    last, before = knots[-1], knots[-2]

    def cube(knot: float) -> FloatArray:
        return np.asarray(np.maximum(x - knot, 0) ** 3)

    columns = []
    for knot in knots[:-2]:
        rest = (cube(before) * (last - knot) - cube(last) * (before - knot)) / (last - before)
        columns.append((cube(knot) - rest) / (last - knots[0]) ** 2)
    return columns
