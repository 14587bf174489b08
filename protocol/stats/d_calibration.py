"""D-calibration: is S(T | x) uniform? From sums per bin of probability.

If the predicted curves are right, the survival probability at a patient's own event time is uniform
on [0, 1]. An event counts in the bin that holds it; a patient censored at probability c has it
somewhere in [0, c], uniformly: ``width / c`` in every bin below and the rest in the bin of c
(Haider et al., JMLR 2020;21(85), section 3.5).
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cells import is_small
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["MAX_BINS", "DCalibration"]

MAX_BINS = 100


@dataclass(frozen=True, eq=False)
class DCalibration(Sums):
    """Probability mass of the patients per bin of S(T | x).

    Attributes
    ----------
    patients : int array (B,)
        Patients, censored or not, whose own probability falls in the bin
        ``(b / B, (b + 1) / B]``; 0 falls in the first.
    mass : float array (B,)
        Their mass after the share of the censored is spread; sums to the patients.
    withheld : int
        Hospitals that sent nothing since a bin held too few.
    """

    patients: IntArray
    mass: FloatArray
    withheld: int

    def _check(self) -> None:
        require(
            self.patients.ndim == 1 and 2 <= self.patients.size <= MAX_BINS,
            f"DCalibration: one row of 2 to {MAX_BINS} bins is expected.",
        )
        require(self.mass.shape == self.patients.shape, "DCalibration: one mass a bin is expected.")
        total = int(self.patients.sum())
        possible = bool((self.mass >= 0).all()) and abs(self.mass.sum() - total) <= 1e-6 * (
            1 + total
        )
        require(possible, "DCalibration: the masses do not add up to the patients.")

    @classmethod
    def empty(cls, num_bins: int = 10) -> Self:
        """Return the sums of no patient."""
        return cls(np.zeros(num_bins, np.int64), np.zeros(num_bins), 0)

    @classmethod
    def of(cls, survival: npt.ArrayLike, event: npt.ArrayLike, num_bins: int = 10) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        survival : float array (N,)
            Predicted probability of being event-free at the patient's own time, ``S(t_i | x_i)``.
        event : int or bool array (N,)
            1 event, 0 censored.

        Raises
        ------
        PayloadError
            If lengths differ or a probability lies outside [0, 1].
        """
        chance = np.asarray(survival, np.float64).ravel()
        happened = np.asarray(event).ravel() == 1
        require(chance.shape == happened.shape, "Probabilities and events differ in length.")
        inside = bool(((chance >= 0) & (chance <= 1)).all())
        require(inside, "A survival probability lies outside [0, 1].")
        own = np.clip(np.ceil(chance * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
        patients = np.bincount(own, minlength=num_bins)
        mass = np.bincount(own[happened], minlength=num_bins).astype(np.float64)
        edges = np.arange(num_bins + 1) / num_bins
        censored = chance[~happened, None]
        covered = np.clip(censored - edges[:-1], 0, 1 / num_bins)
        share = covered / np.where(censored > 0, censored, 1.0)
        share[:, 0] += (censored == 0).ravel()
        return cls(patients.astype(np.int64), mass + share.sum(axis=0), 0)

    def merge(self, other: Self) -> Self:
        """Add two hospitals' masses on the same bins."""
        require(
            self.mass.shape == other.mass.shape, "D-calibrations of unlike bins cannot be added."
        )
        patients, mass = self.patients + other.patients, self.mass + other.mass
        return type(self)(patients, mass, self.withheld + other.withheld)

    def chi_square(self) -> tuple[float, int]:
        """Return the statistic against equal masses and its B - 1 degrees of freedom.

        A large value means the curves are not calibrated; nan without patients.
        """
        total, bins = float(self.patients.sum()), len(self.mass)
        if total == 0:
            return math.nan, bins - 1
        expected = total / bins
        return float(((self.mass - expected) ** 2).sum() / expected), bins - 1

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing where a bin holds 1 .. ``min_cell`` - 1 patients.

        Joining or spreading bins would draw the masses towards uniform and so make a bad model look
        calibrated; ask for fewer bins instead.
        """
        if any(is_small(int(count), min_cell) for count in self.patients):
            return type(self)(np.zeros_like(self.patients), np.zeros_like(self.mass), 1)
        return self
