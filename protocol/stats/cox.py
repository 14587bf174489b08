"""Cox regression, site-stratified: likelihood, gradient and information that hospitals add.

With one baseline hazard a hospital the partial log-likelihood is a plain sum over hospitals, so a
hospital evaluates its own risk sets at the coefficients it is asked for and sends what is left
after summing over all of them. No event time and no risk set leaves.

What a reader learns. At one ``beta``: how many patients and events, and P + P(P+1)/2 sums over
every event's risk set. With one event the gradient is that patient's covariates minus a mean, and
with k events asked at many ``beta`` it is a system of equations in the patients; `suppressed`
withholds small hospitals, and a hospital limits how often and how far from the fit it answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.sums import FloatArray, Sums, require

__all__ = ["MAX_COVARIATES", "TIES", "CoxSums", "check_symmetric", "check_ties", "tidy"]

MAX_COVARIATES = 200
TIES = ("breslow", "efron")


def check_ties(ties: str) -> None:
    """Raise a `PayloadError` unless ``ties`` is one of `TIES`."""
    require(ties in TIES, f"Ties are treated as '{ties[:20]}'; write one of {', '.join(TIES)}.")


@dataclass(frozen=True, eq=False)
class CoxSums(Sums):
    """The partial log-likelihood and its derivatives at one ``beta``.

    Attributes
    ----------
    names : tuple of str, length P
        Covariates, 1 to `MAX_COVARIATES`.
    ties : tuple of one str
        The rule for tied events, one of `TIES`.
    beta : float array (P,)
        Where everything was evaluated; sums at unlike coefficients are not added.
    num_patients, num_events : int
        Persons, not weights.
    num_sites : int
        Hospitals with at least one event: those the coefficients rest on.
    event_weight : float
        Sum of the events' case weights; ``num_events`` without weights.
    log_likelihood : float
        Higher is better.
    gradient : float array (P,)
        Score vector, the derivative of ``log_likelihood``.
    information : float array (P, P)
        Minus the second derivative; symmetric, no negative diagonal.
    withheld : int
        Hospitals whose sums are not in here because they were small.
    """

    names: tuple[str, ...]
    ties: tuple[str, ...]
    beta: FloatArray
    num_patients: int
    num_events: int
    num_sites: int
    event_weight: float
    log_likelihood: float
    gradient: FloatArray
    information: FloatArray
    withheld: int

    def _check(self) -> None:
        width = len(self.names)
        bounded = 1 <= width <= MAX_COVARIATES
        require(bounded, f"CoxSums: {width} covariates; 1 to {MAX_COVARIATES} are allowed.")
        require(len(set(self.names)) == width, "CoxSums: a covariate is named twice.")
        require(len(self.ties) == 1, "CoxSums: name one rule for tied events.")
        check_ties(self.ties[0])
        shapes = (self.beta.shape, self.gradient.shape, self.information.shape)
        require(
            shapes == ((width,), (width,), (width, width)),
            "CoxSums: beta, gradient and information do not have one entry a covariate.",
        )
        check_symmetric(self.information, "CoxSums.information")
        require(self.num_events <= self.num_patients, "CoxSums: more events than patients.")
        require(
            self.num_sites <= self.num_events, "CoxSums: more hospitals with events than events."
        )
        require(
            (self.event_weight > 0) == (self.num_events > 0) and self.event_weight >= 0,
            "CoxSums: the events' weight does not match their number.",
        )

    @classmethod
    def empty(cls, names: Sequence[str], beta: npt.ArrayLike, ties: str, withheld: int = 0) -> Self:
        """Return the sums of no patient."""
        width = len(names)
        nothing, square = np.zeros(width), np.zeros((width, width))
        at = np.asarray(beta, np.float64)
        return cls(tuple(names), (ties,), at, 0, 0, 0, 0.0, 0.0, nothing, square, withheld)

    def merge(self, other: Self) -> Self:
        """Add the sums of two sets of hospitals at the same coefficients."""
        return self._combined(other, 1)

    def without(self, part: Self) -> Self:
        """Return what is left when a hospital takes its own sums out again.

        The counts are exact; the floats lose the rounding of one subtraction, so a fit that must
        equal one without the hospital goes on from here with the others' answers.

        Raises
        ------
        PayloadError
            If ``part`` counts more than is here, or stands at other coefficients.
        """
        fits = (
            part.num_patients <= self.num_patients
            and part.num_events <= self.num_events
            and part.num_sites <= self.num_sites
            and part.withheld <= self.withheld
        )
        require(fits, "CoxSums: the part to withdraw counts more patients than the whole.")
        return self._combined(part, -1)

    def _combined(self, other: Self, sign: int) -> Self:
        same = (self.names, self.ties) == (other.names, other.ties)
        require(same, "Cox sums of different covariates or rules for ties cannot be added.")
        require(
            bool(np.array_equal(self.beta, other.beta)),
            "Cox sums at different coefficients cannot be added; ask again at one beta.",
        )
        events = self.num_events + sign * other.num_events
        weight = max(self.event_weight + sign * other.event_weight, 0.0) if events else 0.0
        return type(self)(
            self.names,
            self.ties,
            self.beta,
            self.num_patients + sign * other.num_patients,
            events,
            self.num_sites + sign * other.num_sites,
            weight,
            self.log_likelihood + sign * other.log_likelihood,
            self.gradient + sign * other.gradient,
            tidy(self.information + sign * other.information),
            self.withheld + sign * other.withheld,
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing but a mark where patients or events are fewer than ``min_cell``.

        A hospital without events loses nothing by it: its share of the likelihood is 0.
        """
        enough = self.num_patients >= min_cell and self.num_events >= min_cell
        if min_cell <= 1 or enough:
            return self
        return self.empty(self.names, self.beta, self.ties[0], withheld=max(self.withheld, 1))


def check_symmetric(matrices: FloatArray, place: str) -> None:
    """Raise unless matrices ``(..., P, P)`` are symmetric with no negative diagonal.

    The allowance is rounding only: a hospital sends symmetric numbers, a difference of two sums
    may lose the last digits.
    """
    scale = float(np.abs(matrices).max(initial=0.0))
    skew = float(np.abs(matrices - np.swapaxes(matrices, -1, -2)).max(initial=0.0))
    require(skew <= 1e-9 * scale, f"{place} is not symmetric; send the second derivatives.")
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1)
    require(bool((diagonal >= -1e-9 * scale).all()), f"{place} has a negative diagonal.")


def tidy(matrix: FloatArray) -> FloatArray:
    """Return ``matrix`` (P, P) without the asymmetry and negative diagonal that rounding leaves."""
    even = (matrix + matrix.T) / 2
    np.fill_diagonal(even, np.maximum(np.diag(even), 0.0))
    return even
