"""One Newton step of a calibration curve as sums over patients.

With weight w (``1 / G``; 0 for a patient censored before the horizon), outcome y, columns u and
``mu = exp(eta)``, ``r = mu / (exp(mu) - 1)``, one patient adds

    log-likelihood   w ( y log(1 - exp(-mu)) - (1 - y) mu )
    gradient         w ( y r - (1 - y) mu ) u
    information      w ( y r (r + mu - 1) + (1 - y) mu ) u u'

Every round sends P + P (P + 1) + 1 sums of the same patients, at coefficients that the centre
chose; a fit takes about 5. A reader who knew the predictions could solve them for as many patients
as rounds send sums, so a hospital answers only with at least ``min_cell`` cases and as many
controls (`CalibrationStep.suppressed`) and should count the rounds it answers.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.censoring import CensoringCurve
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["CalibrationStep"]


@dataclass(frozen=True, eq=False)
class CalibrationStep(Sums):
    """Log-likelihood, gradient, information and squared gradients at given coefficients.

    Attributes
    ----------
    horizon_months : float
        Months, above 0.
    form, knots, coefficients : tuple
        Of the `CalibrationCurve`; the form stands in a tuple of one.
    num_patients, num_cases, num_controls : int
        Patients; those with the event by the horizon; those event-free at it.
    log_likelihood : float
        Weighted.
    gradient, information, squared : float array (P,), (P, P), (P, P)
        ``squared`` sums the outer products of the patients' gradients, for robust errors.
    """

    horizon_months: float
    form: tuple[str, ...]
    knots: tuple[float, ...]
    coefficients: tuple[float, ...]
    num_patients: int
    num_cases: int
    num_controls: int
    log_likelihood: float
    gradient: FloatArray
    information: FloatArray
    squared: FloatArray

    def _check(self) -> None:
        require(self.horizon_months > 0, "CalibrationStep: the horizon must be above 0 months.")
        require(len(self.form) == 1, "CalibrationStep: one form is expected.")
        size = len(self.curve.coefficients)
        shapes = (self.gradient.shape, self.information.shape, self.squared.shape)
        require(
            shapes == ((size,), (size, size), (size, size)),
            "CalibrationStep: gradient and matrices need one entry a coefficient.",
        )
        possible = self.num_cases + self.num_controls <= self.num_patients
        require(possible, "CalibrationStep: more cases and controls than patients.")

    @property
    def curve(self) -> CalibrationCurve:
        """The curve at which the sums were taken."""
        return CalibrationCurve(self.form[0], self.knots, self.coefficients)

    @classmethod
    def empty(cls, curve: CalibrationCurve, horizon_months: float) -> Self:
        """Return the sums of no patient."""
        size = len(curve.coefficients)
        place = (float(horizon_months), (curve.form,), curve.knots, curve.coefficients)
        square = np.zeros((size, size))
        return cls(*place, 0, 0, 0, 0.0, np.zeros(size), square, square)

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        predicted: npt.ArrayLike,
        *,
        curve: CalibrationCurve,
        horizon_months: float,
        censoring: CensoringCurve,
    ) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months, >= 0.
        event : int or bool array (N,)
            1 event, 0 censored.
        predicted : float array (N,)
            Predicted probability of the event by the horizon, in [0, 1].

        Raises
        ------
        PayloadError
            If lengths differ, a time is not finite or a probability lies outside [0, 1].
        """
        time = np.asarray(months, np.float64).ravel()
        happened = np.asarray(event).ravel() == 1
        columns, offset = curve.design(predicted)
        require(
            time.shape == happened.shape == offset.shape,
            "Times, events and predictions differ in length.",
        )
        case, control = happened & (time <= horizon_months), time > horizon_months
        weight = case * censoring.weight(time) + control * censoring.weight(horizon_months)
        eta = np.clip(columns @ np.asarray(curve.coefficients) + offset, -30, 30)
        mu = np.exp(eta)
        ratio = mu / np.expm1(np.minimum(mu, 700.0))  # beyond, the ratio is 0 to the last bit
        first = weight * np.where(case, ratio, -mu)
        second = weight * np.where(case, ratio * np.maximum(ratio + mu - 1, 0), mu)
        log_likelihood = weight * np.where(case, np.log(-np.expm1(-mu)), -mu)
        gradients = first[:, None] * columns
        return cls(
            float(horizon_months),
            (curve.form,),
            curve.knots,
            curve.coefficients,
            len(time),
            int(case.sum()),
            int(control.sum()),
            float(log_likelihood.sum()),
            gradients.sum(axis=0),
            (columns * second[:, None]).T @ columns,
            gradients.T @ gradients,
        )

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums; horizon and curve must agree."""
        same = (self.horizon_months, self.curve) == (other.horizon_months, other.curve)
        require(same, "Calibration steps at different horizons or curves cannot be added.")
        return type(self)(
            self.horizon_months,
            self.form,
            self.knots,
            self.coefficients,
            self.num_patients + other.num_patients,
            self.num_cases + other.num_cases,
            self.num_controls + other.num_controls,
            self.log_likelihood + other.log_likelihood,
            self.gradient + other.gradient,
            self.information + other.information,
            self.squared + other.squared,
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing where cases or controls are fewer than ``min_cell``."""
        left = self.num_patients - self.num_cases - self.num_controls
        if min(self.num_cases, self.num_controls) < min_cell or 0 < left < min_cell:
            return type(self).empty(self.curve, self.horizon_months)
        return self
