"""Cox regression, pooled: risk-set sums on a common grid of times.

With one baseline hazard for all hospitals the likelihood is no sum over hospitals, but its
ingredients are: at each grid time, how much weight is at risk and where its mean and second moment
lie (Lu et al. 2015, "WebDISCO", J Am Med Inform Assoc 22:1212). An event at ``g_(k-1) < t <= g_k``
counts at ``g_k``; at risk there is who ``start < g_k`` and was observed until ``g_k`` or had an
event that counts there; whoever goes beyond the last point is censored there.

Exact where the grid holds every distinct event time of all hospitals (then it is the pooled Cox
fit, Efron's ties included). On a coarser grid it is the grouped approximation: the Cox fit of the
event times rounded up and the censoring times rounded down to the grid, with the ties that makes.
A covariate that goes with the time of censoring (the date of entry) takes the first bias.

What a reader learns. The difference of S0 between neighbouring times is the sum of ``w exp(x
beta)`` over those who left (less those who entered) between them, and S1 - beside it - that sum of
their covariates; the event sums are those of the tied events. One patient leaving alone is
therefore laid open completely. `client.cox.grid_sums` refuses where a change between two points
rests on fewer than ``min_cell`` patients (or, if the study allows, moves the times together, which
is no longer exact); `suppressed` here sees only sums and can only withhold the whole. With a fine
grid and small hospitals only adding under encryption protects; the site-stratified form needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.stats.cells import is_small
from protocol.stats.cox import MAX_COVARIATES, CoxSums, check_symmetric, tidy
from protocol.stats.cox_hazard import CoxHazard, HazardTerms, hazard_terms
from protocol.stats.sums import FloatArray, IntArray, Sums, require

__all__ = ["MAX_GRID_NUMBERS", "MAX_GRID_POINTS", "ROUNDING", "CoxGridSums", "check_grid"]

MAX_GRID_POINTS = 1000
# K * P * P: two such tables of decimal numbers fit into one document of 8 MiB.
MAX_GRID_NUMBERS = 180_000
# Of a sum of squares, what a difference to the squared mean cannot resolve.
ROUNDING = 1e-13
_TABLES = (
    *("deaths", "event_weight", "event_x"),
    *("risk0", "risk1", "risk2", "tied0", "tied1", "tied2"),
)
_ADDED = ("num_patients", "num_sites", "withheld", *_TABLES)


def check_grid(grid_months: Sequence[float], num_covariates: int) -> None:
    """Raise a `PayloadError` unless a grid rises, starts above 0 and is small enough to send."""
    points = len(grid_months)
    require(
        1 <= points <= MAX_GRID_POINTS and 1 <= num_covariates <= MAX_COVARIATES,
        f"A Cox grid of {points} times and {num_covariates} covariates was asked for; at most "
        f"{MAX_GRID_POINTS} and {MAX_COVARIATES} are allowed.",
    )
    require(
        points * num_covariates**2 <= MAX_GRID_NUMBERS,
        f"A Cox grid of {points} times and {num_covariates} covariates needs more than "
        f"{MAX_GRID_NUMBERS} numbers; use a coarser grid or the stratified form.",
    )
    grid = np.asarray(grid_months, np.float64)
    rises = bool(np.isfinite(grid).all() and grid[0] > 0 and (np.diff(grid) > 0).all())
    require(rises, "A Cox grid must rise from above 0 months.")


@dataclass(frozen=True, eq=False)
class CoxGridSums(Sums):
    """Risk-set and event sums at each grid time, for one ``beta``.

    With ``r_i = w_i exp(x_i beta)``, R_k the risk set and E_k the events at grid time k:

    Attributes
    ----------
    names : tuple of str, length P
    grid_months : tuple of float, length K
    beta : float array (P,)
    num_patients, num_sites : int
        Patients; hospitals with at least one event.
    deaths : int array (K,)
        Events.
    event_weight, event_x : float arrays (K,), (K, P)
        Sums of ``w_i`` and ``w_i x_i`` over E_k.
    risk0, risk1, risk2 : float arrays (K,), (K, P), (K, P, P)
        Sums of ``r_i``, ``r_i x_i``, ``r_i x_i x_i'`` over R_k.
    tied0, tied1, tied2 : float arrays
        The same over E_k, for Efron's ties.
    coarse_months : float
        Longest span over which a hospital moved its times together; 0 where it did not.
    withheld : int
        Hospitals whose sums are not in here because they were small.
    """

    names: tuple[str, ...]
    grid_months: tuple[float, ...]
    beta: FloatArray
    num_patients: int
    num_sites: int
    deaths: IntArray
    event_weight: FloatArray
    event_x: FloatArray
    risk0: FloatArray
    risk1: FloatArray
    risk2: FloatArray
    tied0: FloatArray
    tied1: FloatArray
    tied2: FloatArray
    coarse_months: float
    withheld: int

    def _check(self) -> None:
        width, points = len(self.names), len(self.grid_months)
        check_grid(self.grid_months, width)
        require(len(set(self.names)) == width, "CoxGridSums: a covariate is named twice.")
        require(
            [getattr(self, name).shape for name in _TABLES]
            == [(points,), (points,), (points, width), *_shapes(points, width) * 2]
            and self.beta.shape == (width,),
            "CoxGridSums: a table does not match the grid and the covariates.",
        )
        for name in ("event_weight", "risk0", "tied0"):
            positive = bool((getattr(self, name) >= 0).all())
            require(positive, f"CoxGridSums.{name} has a negative sum of weights.")
        check_symmetric(self.risk2, "CoxGridSums.risk2")
        check_symmetric(self.tied2, "CoxGridSums.tied2")
        require(
            bool(((self.event_weight > 0) == (self.deaths > 0)).all()),
            "CoxGridSums: the events' weight does not match their number.",
        )
        require(
            bool((self.tied0 <= self.risk0 * (1 + 1e-9)).all()),
            "CoxGridSums: the events weigh more than the risk set they belong to.",
        )
        require(
            int(self.deaths.sum()) <= self.num_patients and self.coarse_months >= 0,
            "CoxGridSums: there are more events than patients.",
        )

    @classmethod
    def empty(
        cls,
        names: Sequence[str],
        grid_months: Sequence[float],
        beta: npt.ArrayLike,
        withheld: int = 0,
    ) -> Self:
        """Return the sums of no patient."""
        check_grid(grid_months, len(names))
        zero, one, two = (np.zeros(s) for s in _shapes(len(grid_months), len(names)))
        return cls(
            names=tuple(names),
            grid_months=tuple(float(point) for point in grid_months),
            beta=np.asarray(beta, np.float64),
            num_patients=0,
            num_sites=0,
            deaths=np.zeros(len(grid_months), np.int64),
            event_weight=zero,
            event_x=one,
            risk0=zero,
            risk1=one,
            risk2=two,
            tied0=zero,
            tied1=one,
            tied2=two,
            coarse_months=0.0,
            withheld=withheld,
        )

    def merge(self, other: Self) -> Self:
        """Add the sums of two sets of hospitals on one grid at the same coefficients."""
        same = (self.names, self.grid_months) == (other.names, other.grid_months)
        require(same, "Cox sums on different grids or covariates cannot be added.")
        require(
            bool(np.array_equal(self.beta, other.beta)),
            "Cox sums at different coefficients cannot be added; ask again at one beta.",
        )
        return type(self)(
            names=self.names,
            grid_months=self.grid_months,
            beta=self.beta,
            coarse_months=max(self.coarse_months, other.coarse_months),
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
        )

    def suppressed(self, min_cell: int) -> Self:
        """Return nothing but a mark where patients or events are too few as a whole.

        No events at all is told: the patients still belong to everybody's risk sets.
        """
        events = int(self.deaths.sum())
        small = self.num_patients < min_cell or is_small(events, min_cell)
        if min_cell <= 1 or not small:
            return self
        return self.empty(self.names, self.grid_months, self.beta, max(self.withheld, 1))

    def _terms(self, ties: str) -> HazardTerms:
        risk, tied = (self.risk0, self.risk1), (self.tied0, self.tied1)
        return hazard_terms(self.deaths, self.event_weight, risk, tied, ties)

    def partial_likelihood(self, ties: str) -> CoxSums:
        """Return the pooled likelihood and its derivatives.

        Parameters
        ----------
        ties : {"breslow", "efron"}

        Returns
        -------
        CoxSums
            ``l = sum_k W-sums of x beta - sum_kl (W_k / D_k) ln den_kl`` and its derivatives, in
            the symbols of `protocol.stats.cox_hazard`.
        """
        terms = self._terms(ties)
        second = np.einsum("k,kpq->pq", terms.hazard, self.risk2)
        second -= np.einsum("k,kpq->pq", terms.tied, self.tied2)
        information = second - terms.mean_square
        # What is left of a constant covariate is rounding; exactly 0 lets the centre name it.
        flat = np.diag(information) <= ROUNDING * np.diag(second)
        information[flat], information[:, flat] = 0.0, 0.0
        events = int(self.deaths.sum())
        return CoxSums(
            self.names,
            (ties,),
            self.beta,
            self.num_patients,
            events,
            self.num_sites,
            float(self.event_weight.sum()),
            float(self.event_x.sum(axis=0) @ self.beta) - terms.log_denominator,
            self.event_x.sum(axis=0)
            - np.einsum("k,kp->p", terms.hazard, self.risk1)
            + np.einsum("k,kp->p", terms.tied, self.tied1),
            tidy(information),
            self.withheld,
        )

    def hazard(self, ties: str) -> CoxHazard:
        """Return the hazard table at ``beta``: baseline hazard, and what residuals need."""
        terms = self._terms(ties)
        return CoxHazard(
            self.names,
            (ties,),
            self.grid_months,
            self.beta,
            terms.hazard,
            terms.tied,
            terms.hazard_x,
            terms.tied_x,
            terms.event_mean,
        )


def _shapes(points: int, width: int) -> list[tuple[int, ...]]:
    return [(points,), (points, width), (points, width, width)]
