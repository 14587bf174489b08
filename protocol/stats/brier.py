"""Brier score over time as sums, weighted for censoring with one curve for all hospitals.

Two passes. First the life tables are added and the centre sends down G (`CensoringCurve`); then
every hospital sends, per horizon, sums over its patients:

    n BS(t) = sum_cases S(t|x_i)^2 / G(t_i) + sum_controls (1 - S(t|x_i))^2 / G(t)

with cases ``t_i <= t`` and an event, controls ``t_i > t`` (Graf et al., Stat Med 1999;18:2529).
With G at exact times this is the pooled figure; on a common grid G is that of times rounded up to
it (see `CensoringCurve`), the predictions are not rounded.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.cells import blocks, is_small
from protocol.stats.censoring import CensoringCurve
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["MAX_HORIZONS", "BrierSums"]

MAX_HORIZONS = 120


@dataclass(frozen=True, eq=False)
class BrierSums(Sums):
    """Sums of weighted squared errors at H horizons; lower is better.

    Attributes
    ----------
    horizons_months : tuple of float, length H
        Increasing, above 0.
    num_patients, cases, controls : int array (H,)
        Patients; those with the event by the horizon; those event-free at it. The rest was
        censored before.
    case_weight, control_weight, squares : float array (H,)
        Sums of ``1 / G`` over cases and controls, and of the weighted squared errors.
    replicates : float array (B, H, 3)
        Squares, case weight and control weight for patients drawn with replacement within the
        hospital (every sample has as many patients as the hospital), G held as it is.
    withheld : int array (H,)
        Hospitals that did not send the horizon.
    """

    horizons_months: tuple[float, ...]
    num_patients: IntArray
    cases: IntArray
    controls: IntArray
    case_weight: FloatArray
    control_weight: FloatArray
    squares: FloatArray
    replicates: FloatArray
    withheld: IntArray

    def _check(self) -> None:
        horizons = np.asarray(self.horizons_months)
        rising = bool((np.diff(horizons, prepend=0.0) > 0).all())
        require(
            rising and 1 <= len(horizons) <= MAX_HORIZONS,
            f"BrierSums: 1 to {MAX_HORIZONS} horizons must rise from above 0 months.",
        )
        rows = [getattr(self, name) for name in COUNTS + WEIGHTS]
        require(
            all(row.shape == horizons.shape for row in rows),
            "BrierSums: every array needs one entry a horizon.",
        )
        require(
            self.replicates.size == 0
            or (self.replicates.ndim == 3 and self.replicates.shape[1:] == (len(horizons), 3)),
            "BrierSums: every replicate holds three sums a horizon.",
        )
        possible = all(bool((row >= 0).all()) for row in (*rows, self.replicates))
        possible &= bool((self.cases + self.controls <= self.num_patients).all())
        require(possible, "BrierSums: a sum is negative or there are more cases than patients.")

    @classmethod
    def empty(cls, horizons_months: tuple[float, ...], replicates: int = 0) -> Self:
        """Return the sums of no patient."""
        size = len(horizons_months)
        sums: dict[str, Any] = {name: np.zeros(size, np.int64) for name in COUNTS}
        sums |= {name: np.zeros(size) for name in WEIGHTS}
        return cls(tuple(horizons_months), replicates=np.zeros((replicates, size, 3)), **sums)

    @classmethod
    def of(
        cls,
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        survival: npt.ArrayLike,
        *,
        horizons_months: tuple[float, ...],
        censoring: CensoringCurve,
        replicates: int = 0,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        months : float array (N,)
            Time to event or censoring, months, >= 0.
        event : int or bool array (N,)
            1 event, 0 censored.
        survival : float array (N, H)
            Predicted probability of being event-free at each horizon, in [0, 1].
        censoring : CensoringCurve
            G of all hospitals; its grid should hold the horizons.
        replicates, rng : int, Generator
            Bootstrap samples, drawn from a secret of the hospital (see `PairCounts.of`).

        Raises
        ------
        PayloadError
            If shapes differ, a prediction lies outside [0, 1], or there are replicates but no rng.
        """
        time, horizons = np.asarray(months, np.float64).ravel(), np.asarray(horizons_months)
        happened = np.asarray(event).ravel() == 1
        predicted = np.asarray(survival, np.float64).reshape(len(time), len(horizons))
        require(time.shape == happened.shape, "Times and events differ in length.")
        inside = bool(((predicted >= 0) & (predicted <= 1)).all())
        require(inside, "A predicted survival lies outside [0, 1].")
        if replicates and rng is None:
            raise PayloadError("Bootstrap replicates need a random generator; pass rng.")
        case = happened[:, None] & (time[:, None] <= horizons)
        control = time[:, None] > horizons
        case_weight = case * censoring.weight(time)[:, None]
        control_weight = control * censoring.weight(horizons)
        squares = predicted**2 * case_weight + (1 - predicted) ** 2 * control_weight
        drawn = np.zeros((replicates, len(horizons), 3))
        if replicates and rng is not None and len(time):
            times = rng.multinomial(len(time), np.full(len(time), 1 / len(time)), size=replicates)
            sums = [times @ each for each in (squares, case_weight, control_weight)]
            drawn = np.stack(sums, axis=2)
        return cls(
            tuple(float(value) for value in horizons),
            np.full(len(horizons), len(time)),
            case.sum(axis=0),
            control.sum(axis=0),
            case_weight.sum(axis=0),
            control_weight.sum(axis=0),
            squares.sum(axis=0),
            drawn,
            np.zeros(len(horizons), np.int64),
        )

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums; horizons and number of replicates must agree."""
        same = self.horizons_months == other.horizons_months
        same &= len(self.replicates) == len(other.replicates)
        require(same, "Brier sums of different horizons or numbers of replicates cannot be added.")
        added = {name: getattr(self, name) + getattr(other, name) for name in COUNTS + WEIGHTS}
        shape = (-1, len(self.horizons_months), 3)  # no replicate, read from JSON, has no shape
        replicates = self.replicates.reshape(shape) + other.replicates.reshape(shape)
        return type(self)(self.horizons_months, replicates=replicates, **added)

    @property
    def scores(self) -> FloatArray:
        """BS(t) per horizon, (H,), in [0, 1] but for the weights; nan without patients."""
        return _mean(self.squares, self.num_patients)

    def null_scores(self, survival: npt.ArrayLike) -> FloatArray:
        """BS(t) of one curve for everybody, (H,).

        Parameters
        ----------
        survival : float array (H,)
            Usually Kaplan-Meier of the summed life table at the horizons.
        """
        curve = np.asarray(survival, np.float64)
        require(curve.shape == self.squares.shape, "The null curve needs one value a horizon.")
        squares = curve**2 * self.case_weight + (1 - curve) ** 2 * self.control_weight
        return _mean(squares, self.num_patients)

    def integrated(self) -> float:
        """IBS: trapezoid of BS over the horizons divided by their span; nan below two horizons."""
        return _integral(self.scores, self.horizons_months)

    def scaled(self, survival: npt.ArrayLike) -> float:
        """Return ``1 - IBS / IBS of the null curve``: 1 is perfect, 0 no better than the curve."""
        null = _integral(self.null_scores(survival), self.horizons_months)
        return 1 - self.integrated() / null if null > 0 else math.nan

    def intervals(self, level: float = 0.95) -> FloatArray:
        """Return the percentile bootstrap interval of BS(t), (H, 2), and of the IBS, last row."""
        rows = self.replicates.reshape(-1, len(self.horizons_months), 3)
        if len(rows) < 2:
            return np.full((len(self.horizons_months) + 1, 2), np.nan)
        scores = _mean(rows[:, :, 0], self.num_patients)
        whole = np.array([_integral(row, self.horizons_months) for row in scores])
        tails = [(1 - level) / 2, (1 + level) / 2]
        return np.quantile(np.column_stack([scores, whole]), tails, axis=0).T

    def suppressed(self, min_cell: int) -> Self:
        """Withhold horizons that would give away fewer than ``min_cell`` patients.

        Between two horizons that are sent, and before the first, lie no or at least ``min_cell``
        events and no or at least ``min_cell`` censorings (halving the horizons, as in `cells`);
        so neither a horizon nor the difference of two is a sum over few patients.
        """
        if min_cell <= 1:
            return self
        left = self.num_patients - self.cases - self.controls
        keep = (self.num_patients >= min_cell) & (self.controls >= min_cell)
        for count in (self.cases, left):
            steps = np.diff(count, prepend=0)
            ends = [block[0].stop - 1 for block in blocks(steps, min_cell)]
            keep &= np.isin(np.arange(len(steps)), ends)
            keep &= np.array([not is_small(int(value), min_cell) for value in count])
        blank = self.empty(self.horizons_months, len(self.replicates))
        values: dict[str, Any] = {
            name: np.where(keep, getattr(self, name), 0) for name in COUNTS + WEIGHTS
        }
        values["withheld"] = self.withheld + ~keep
        values["replicates"] = (
            self.replicates * keep[:, None] if self.replicates.size else blank.replicates
        )
        return type(self)(self.horizons_months, **values)


COUNTS = ("num_patients", "cases", "controls", "withheld")
WEIGHTS = ("case_weight", "control_weight", "squares")


def _mean(sums: FloatArray, number: IntArray) -> FloatArray:
    return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


def _integral(values: FloatArray, horizons: tuple[float, ...]) -> float:
    if len(horizons) < 2:
        return math.nan
    widths = np.diff(np.asarray(horizons))
    area = float(((values[1:] + values[:-1]) / 2 * widths).sum())
    return area / (horizons[-1] - horizons[0])
