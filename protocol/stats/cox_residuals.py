"""Sums of a Cox fit's residuals: robust variance and the check of proportional hazards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cox import MAX_COVARIATES, check_symmetric
from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["CoxResiduals"]


@dataclass(frozen=True, eq=False)
class CoxResiduals(Sums):
    """Sums over patients and events of residuals at the fitted coefficients.

    A reader learns P x P second moments of the score residuals over all patients, and sums over
    all events of times and Schoenfeld residuals; with few events these point at persons, hence
    `suppressed`.

    Attributes
    ----------
    names : tuple of str, length P
    beta : float array (P,)
    transform : tuple of one str
        Which function g of time was used, e.g. ``("log",)``.
    num_patients, num_events : int
    outer : float array (P, P)
        ``sum_i u_i u_i'`` with u_i the weighted score residual of patient i (Lin & Wei 1989).
    event_weight, time_sum, time_squares : float
        Sums over events of ``w``, ``w g(t)`` and ``w g(t)^2``.
    schoenfeld, schoenfeld_time : float array (P,)
        Sums over events of ``w s`` and ``w g(t) s``; s = covariates minus the risk set's mean.
    martingale : float
        ``sum_i w_i (event_i - expected_i)``; 0 over all hospitals of a pooled fit.
    withheld : int
    """

    names: tuple[str, ...]
    beta: FloatArray
    transform: tuple[str, ...]
    num_patients: int
    num_events: int
    outer: FloatArray
    event_weight: float
    time_sum: float
    time_squares: float
    schoenfeld: FloatArray
    schoenfeld_time: FloatArray
    martingale: float
    withheld: int

    def _check(self) -> None:
        width = len(self.names)
        require(1 <= width <= MAX_COVARIATES, "CoxResiduals: too few or too many covariates.")
        require(len(self.transform) == 1, "CoxResiduals: name one transform of time.")
        shapes = [a.shape for a in (self.beta, self.schoenfeld, self.schoenfeld_time, self.outer)]
        require(
            shapes == [(width,), (width,), (width,), (width, width)],
            "CoxResiduals: a table does not have one entry a covariate.",
        )
        check_symmetric(self.outer, "CoxResiduals.outer")
        possible = self.time_squares >= 0 and self.event_weight >= 0
        require(possible, "CoxResiduals: a sum of squares or weights is negative.")
        require(self.num_events <= self.num_patients, "CoxResiduals: more events than patients.")

    @classmethod
    def empty(
        cls, names: Sequence[str], beta: npt.ArrayLike, transform: str, withheld: int = 0
    ) -> Self:
        """Return the sums of no patient."""
        width = len(names)
        nothing = np.zeros(width)
        at, square = np.asarray(beta, np.float64), np.zeros((width, width))
        return cls(
            tuple(names),
            at,
            (transform,),
            0,
            0,
            square,
            0.0,
            0.0,
            0.0,
            nothing,
            nothing,
            0.0,
            withheld,
        )

    def merge(self, other: Self) -> Self:
        """Add two hospitals' sums of residuals of the same fit."""
        same = (self.names, self.transform) == (other.names, other.transform)
        require(
            same and bool(np.array_equal(self.beta, other.beta)),
            "Residuals of different fits or functions of time cannot be added.",
        )
        return type(self)(
            self.names,
            self.beta,
            self.transform,
            self.num_patients + other.num_patients,
            self.num_events + other.num_events,
            self.outer + other.outer,
            self.event_weight + other.event_weight,
            self.time_sum + other.time_sum,
            self.time_squares + other.time_squares,
            self.schoenfeld + other.schoenfeld,
            self.schoenfeld_time + other.schoenfeld_time,
            self.martingale + other.martingale,
            self.withheld + other.withheld,
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing but a mark where patients or events are fewer than ``min_cell``."""
        enough = self.num_patients >= min_cell and self.num_events >= min_cell
        if min_cell <= 1 or enough:
            return self
        return self.empty(self.names, self.beta, self.transform[0], max(self.withheld, 1))
