"""Exact Cox regression over hospitals: Newton's method on sums that the hospitals send.

``ask(beta)`` returns the hospitals' merged `CoxSums`; how the question travels is not known here.
Site-stratified, the hospitals' sums are `CoxSums` already; pooled, the merged `CoxGridSums` become
one by ``.partial_likelihood(ties)``. Newton's step on the sum is the pooled analysis' own step, so
the coefficients are its coefficients, not an average of the hospitals' (Cox 1972; WebDISCO, Lu et
al. 2015).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.errors import DataError, TrainingError
from protocol.stats.cox import CoxSums
from strategies.cox_checks import check_first, check_information, check_same
from strategies.cox_penalty import Penalty

__all__ = ["Ask", "CoxFit", "fit", "withdraw"]

FloatArray = npt.NDArray[np.float64]
Ask = Callable[[FloatArray], CoxSums]
# In standard deviations of the linear predictor over the risk sets of the first answer.
LONGEST_STEP = 5.0
FARTHEST = 10.0
HALVINGS = 12
# A step so short is close enough for Newton's method to be quadratic.
NEAR = 1e-6


@dataclass(frozen=True)
class CoxFit:
    """Coefficients and what the hospitals' sums were at them.

    Attributes
    ----------
    at : CoxSums
        At the coefficients ``at.beta``.
    null : CoxSums or None
        At ``beta = 0``; ``None`` when the fit started elsewhere and was not given it.
    penalty : Penalty
    rounds : int
        How often the hospitals were asked.
    """

    at: CoxSums
    null: CoxSums | None
    penalty: Penalty
    rounds: int

    @property
    def beta(self) -> FloatArray:
        """Log hazard ratios (P,), per unit of each covariate."""
        return self.at.beta

    @property
    def objective(self) -> float:
        """Penalised partial log-likelihood; higher is better."""
        return self.at.log_likelihood - self.penalty.value(self.beta, self.at.num_patients)


def fit(
    ask: Ask,
    num_covariates: int,
    *,
    penalty: Penalty | None = None,
    start: npt.ArrayLike | None = None,
    first: CoxSums | None = None,
    null: CoxSums | None = None,
    tolerance: float = 1e-11,
    max_rounds: int = 30,
    min_sites: int = 1,
) -> CoxFit:
    """Maximise the (penalised) partial likelihood.

    Parameters
    ----------
    ask : callable
        ``beta (P,) -> CoxSums``; the same hospitals, merged in the same order, every time. It may
        raise `DataError` where a hospital refuses to answer so far out; the step is then halved.
    num_covariates : int
        P.
    penalty : Penalty, optional
        None by default.
    start : float array (P,), optional
        Where to begin; 0 by default.
    first : CoxSums, optional
        The answer at ``start`` where it is known; saves a round.
    null : CoxSums, optional
        The answer at 0 where it is known.
    tolerance : float
        Ends when no coefficient would move by more, in units of one standard deviation of its
        covariate; Newton's last step is far smaller than the one before.
    max_rounds : int
        How often hospitals are asked at most.
    min_sites : int
        Hospitals with events on which the coefficients must rest at least.

    Raises
    ------
    TrainingError
        If there are no events, too few hospitals have one, covariates are constant or collinear,
        the likelihood rises without end (separation), or it did not converge.
    """
    rule = Penalty() if penalty is None else penalty
    beta = np.zeros(num_covariates) if start is None else np.array(start, np.float64)
    state = first if first is not None else ask(beta)
    rounds = 0 if first is not None else 1
    check_first(state, beta, min_sites)
    if null is None and not beta.any():
        null = state
    scale = _Scale(state)
    step, before = np.zeros(num_covariates), np.inf
    while rounds <= max_rounds:
        check_information(state, rule, begun=rounds <= 1)
        n = state.num_patients
        step = rule.minimise(state.beta, state.gradient, state.information, n) - state.beta
        moved = scale.largest(step)
        # Near the optimum each step is about the square of the one before; where it is not, what
        # moves is rounding.
        if moved <= tolerance or before / 10 < moved <= NEAR:
            return CoxFit(state, null, rule, rounds)
        before = moved
        step *= min(1.0, LONGEST_STEP / max(scale.spread(step), LONGEST_STEP))
        found, asked = _line_search(ask, state, step, rule, scale, max_rounds - rounds)
        rounds += asked
        if found is None:
            if moved <= NEAR:
                # No step improves what rounding still shows: this is the optimum.
                return CoxFit(state, null, rule, rounds)
            break
        state = found
    worst = state.names[int(np.argmax(np.abs(step) * scale.deviation))]
    raise TrainingError(
        f"The Cox regression found no finite coefficients in {rounds} rounds: along '{worst}' the "
        "likelihood still rises, as it does where a covariate separates the events from the other "
        "patients; leave it out or add a (stronger) ridge penalty."
    )


def withdraw(
    earlier: CoxFit,
    ask_others: Ask,
    *,
    first: CoxSums | None = None,
    min_sites: int = 1,
) -> CoxFit:
    """Fit again without a hospital that withdrew, from where the coefficients stood.

    The result is the fit that never saw the hospital (up to the tolerance): the likelihood of the
    others is concave, so where Newton starts does not matter to where it ends.

    Parameters
    ----------
    earlier : CoxFit
        The fit with the hospital.
    ask_others : callable
        Asks the remaining hospitals only.
    first : CoxSums, optional
        The others' sums at the old coefficients: their last answers merged, or, site-stratified,
        ``earlier.at.without(part)``; saves a round.

    Raises
    ------
    TrainingError
        As `fit`.
    """
    return fit(
        ask_others,
        len(earlier.beta),
        penalty=earlier.penalty,
        start=earlier.beta,
        first=first,
        min_sites=min_sites,
    )


class _Scale:
    """Units that do not depend on the covariates': deviations over the first answer's risk sets."""

    def __init__(self, sums: CoxSums) -> None:
        self._covariance = sums.information / sums.event_weight
        self.deviation = np.sqrt(np.maximum(np.diag(self._covariance), 0.0))

    def largest(self, step: FloatArray) -> float:
        return float(np.abs(step * self.deviation).max())

    def spread(self, beta: FloatArray) -> float:
        return float(np.sqrt(max(float(beta @ self._covariance @ beta), 0.0)))


def _line_search(
    ask: Ask, state: CoxSums, step: FloatArray, rule: Penalty, scale: _Scale, left: int
) -> tuple[CoxSums | None, int]:
    """Halve the step until the objective does not fall; return the answer and rounds used."""
    n = state.num_patients
    best = state.log_likelihood - rule.value(state.beta, n)
    # A fall within the rounding of the sum is no fall.
    floor, asked = best - 1e-13 * (abs(best) + 1.0), 0
    for halving in range(min(HALVINGS, left)):
        beta = state.beta + step * 0.5**halving
        if scale.spread(beta) > FARTHEST:
            # No hospital should be asked where single patients make up its sums.
            continue
        asked += 1
        trial = _answer(ask, beta)
        if trial is None:
            continue
        check_same(trial, state)
        if trial.log_likelihood - rule.value(beta, n) >= floor:
            return trial, asked
    return None, asked


def _answer(ask: Ask, beta: FloatArray) -> CoxSums | None:
    try:
        return ask(beta)
    except DataError:
        # They answered before, so it is these coefficients that a hospital refuses.
        return None
