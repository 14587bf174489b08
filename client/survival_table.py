"""The hospital's patients as a regression sees them: times, events, covariates, weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import DataError
from protocol.stats.cox import MAX_COVARIATES

__all__ = ["SurvivalTable", "assign_folds", "require_enough"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SurvivalTable:
    """N patients with a known outcome and complete covariates; it never leaves the hospital.

    Attributes
    ----------
    names : tuple of str, length P
        Covariates, in the study's order.
    months : float array (N,)
        Time of event or censoring.
    event : bool array (N,)
    start_months : float array (N,)
        When observation began (left truncation): at risk in ``start < t <= months``; 0 without.
    x : float array (N, P)
        Covariates, standardised with the study's common constants.
    weight : float array (N,)
        Case weights > 0; 1 without.
    stratum : int array (N,)
        Groups inside the hospital with their own baseline hazard; 0 without.
    """

    names: tuple[str, ...]
    months: FloatArray
    event: npt.NDArray[np.bool_]
    start_months: FloatArray
    x: FloatArray
    weight: FloatArray
    stratum: IntArray

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        months: npt.ArrayLike,
        event: npt.ArrayLike,
        x: npt.ArrayLike,
        *,
        start_months: npt.ArrayLike | None = None,
        weight: npt.ArrayLike | None = None,
        stratum: npt.ArrayLike | None = None,
    ) -> "SurvivalTable":
        """Check and keep one hospital's patients.

        Raises
        ------
        DataError
            If lengths differ, a number is not finite, a time is negative or not after its start, an
            event is neither 0 nor 1, a weight is not above 0, or there are no or too many names.
        """
        time = np.array(months, np.float64).ravel()
        size, width = len(time), len(names)
        happened = np.array(event).ravel()
        begun = np.zeros(size) if start_months is None else np.array(start_months, np.float64)
        weights = np.ones(size) if weight is None else np.array(weight, np.float64)
        group = np.zeros(size, np.int64) if stratum is None else np.array(stratum, np.int64)
        values = np.array(x, np.float64)
        if not (1 <= width <= MAX_COVARIATES and len(set(names)) == width):
            raise DataError(
                f"A regression on {width} covariates was asked for; name 1 to {MAX_COVARIATES} "
                "different ones in the study."
            )
        if values.shape != (size, width) or {
            a.shape for a in (happened, begun, weights, group)
        } != {(size,)}:
            raise DataError(
                f"The covariates form a table of {values.shape} for {size} patients and {width} "
                "names; give one row a patient, one column a name, one entry a patient elsewhere."
            )
        _check_numbers(time, happened, begun, weights, values)
        return cls(tuple(names), time, happened == 1, begun, values, weights, group)

    def __len__(self) -> int:
        return len(self.months)

    @property
    def num_events(self) -> int:
        return int(self.event.sum())

    def take(self, kept: npt.NDArray[np.generic] | slice) -> "SurvivalTable":
        """Return the patients that a bool or index array (M,) or a slice names."""
        at: Any = kept
        return SurvivalTable(
            self.names,
            self.months[at],
            self.event[at],
            self.start_months[at],
            self.x[at],
            self.weight[at],
            self.stratum[at],
        )


def _check_numbers(
    months: FloatArray,
    event: npt.NDArray[np.generic],
    start: FloatArray,
    weight: FloatArray,
    x: FloatArray,
) -> None:
    if not np.isfinite(x).all():
        raise DataError("A covariate is missing or not finite; fill missing values in first.")
    if not (np.isfinite(months) & (months > start) & np.isfinite(start) & (start >= 0)).all():
        raise DataError(
            "A follow-up time is not finite, not above 0 or not after its start; keep only "
            "patients who were observed for some time."
        )
    if not np.isin(event, (0, 1)).all():
        raise DataError("An event is neither 0 nor 1; keep only patients with a known outcome.")
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise DataError("A case weight is not above 0; leave patients without weight out.")


def require_enough(table: SurvivalTable, min_cell: int, *, events_needed: bool = True) -> None:
    """Refuse before anything is sent when the hospital is too small for its own rule.

    Parameters
    ----------
    min_cell : int
        The hospital's smallest publishable count, at least 1; 1 publishes everything.
    events_needed : bool
        Whether no event at all is too few as well (for risk-set sums it is not).

    Raises
    ------
    DataError
        With the counts and the minimum, for the hospital's own eyes and the refusal that is sent.
    """
    if min_cell < 1:
        raise DataError(f"min_cell is {min_cell}; the smallest publishable count is at least 1.")
    few_patients = min_cell > 1 and len(table) < min_cell
    few_events = min_cell > 1 and table.num_events < min_cell
    if few_patients or (few_events and (events_needed or table.num_events)):
        # The sentence travels as the refusal, so it must not tell the small counts themselves.
        what = "patients" if few_patients else "events"
        raise DataError(
            f"This hospital has fewer {what} than its minimum of {min_cell}, so it sends no sums "
            "of the Cox regression; lower its own minimum or leave it out of this regression."
        )


def assign_folds(
    table: SurvivalTable, num_folds: int, rng: np.random.Generator, *, min_cell: int
) -> IntArray:
    """Return the fold (N,) of each patient for cross-validation inside this hospital.

    Patients with and without event are dealt out evenly. The centre can subtract the sums without
    a fold from the sums of all, so a fold is a publication of its own: where folds would hold
    fewer than ``min_cell`` patients or events, the whole hospital goes into one fold, drawn.

    Raises
    ------
    DataError
        If fewer than 2 folds are asked for.
    """
    if num_folds < 2:
        raise DataError(f"Cross-validation in {num_folds} folds was asked for; ask for at least 2.")
    size, events = len(table), table.num_events
    smallest = (events // num_folds, (size - events) // num_folds)
    whole = int(rng.integers(num_folds))
    if smallest[0] < max(min_cell, 1) or smallest[0] + smallest[1] < min_cell:
        return np.full(size, whole, np.int64)
    folds = np.empty(size, np.int64)
    for happened in (True, False):
        members = rng.permutation(np.flatnonzero(table.event == happened))
        folds[members] = np.arange(len(members)) % num_folds
    return folds
