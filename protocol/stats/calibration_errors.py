"""Distance between predicted and observed risk over patients: ICI, E50, E90."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.histogram import Histogram
from protocol.stats.sums import Sums, require

__all__ = ["CalibrationErrors"]

BINS = 1000


@dataclass(frozen=True, eq=False)
class CalibrationErrors(Sums):
    """Sum and histogram of ``|observed(p) - p|``; lower is better.

    Attributes
    ----------
    num_patients : int
        Patients with a prediction; censored ones count as well.
    absolute : float
        Sum of the differences.
    histogram : Histogram
        Of the differences on [0, 1], 1,000 bins: a quantile read from it is at most .001 off.
    """

    num_patients: int
    absolute: float
    histogram: Histogram

    def _check(self) -> None:
        possible = 0 <= self.absolute <= self.num_patients * (1 + 1e-9)
        require(possible, "CalibrationErrors: a difference of probabilities lies in [0, 1].")
        bins = (self.histogram.low, self.histogram.high, self.histogram.counts.size)
        require(bins == (0.0, 1.0, BINS), "CalibrationErrors: 1000 bins from 0 to 1 are expected.")

    @classmethod
    def empty(cls) -> Self:
        """Return the sums of no patient."""
        return cls(0, 0.0, Histogram.empty(0.0, 1.0, BINS))

    @classmethod
    def of(cls, predicted: npt.ArrayLike, curve: CalibrationCurve) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        predicted : float array (N,)
            Predicted probability of the event by the curve's horizon, in [0, 1].
        curve : CalibrationCurve
            Fitted to all hospitals (`fit_calibration`).
        """
        risk = np.asarray(predicted, np.float64).ravel()
        distance = np.abs(curve.observed(risk) - risk)
        return cls(len(risk), float(distance.sum()), Histogram.of(distance, 0.0, 1.0, BINS))

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums, taken with one curve."""
        return type(self)(
            self.num_patients + other.num_patients,
            self.absolute + other.absolute,
            self.histogram.merge(other.histogram),
        )

    @property
    def ici(self) -> float:
        """Integrated calibration index, the mean difference; nan without patients."""
        return self.absolute / self.num_patients if self.num_patients else float("nan")

    def quantile(self, q: float) -> float:
        """Return the difference that a share ``q`` of patients stay below (E50: .5, E90: .9)."""
        return self.histogram.quantile(q) if self.num_patients else float("nan")

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing for few patients, else small bins spread (`Histogram.suppressed`)."""
        if self.num_patients < min_cell:
            return type(self).empty()
        return type(self)(self.num_patients, self.absolute, self.histogram.suppressed(min_cell))
