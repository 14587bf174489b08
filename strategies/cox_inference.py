"""Standard errors, intervals and tests of a federated Cox regression."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, ndtr, ndtri

from protocol.errors import ConfigError, TrainingError
from protocol.stats.cox import CoxSums
from protocol.stats.cox_residuals import CoxResiduals
from strategies.cox import CoxFit

__all__ = [
    "ChiSquare",
    "Coefficient",
    "coefficients",
    "covariance",
    "likelihood_ratio_test",
    "proportional_hazards_test",
    "score_test",
    "wald_test",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coefficient:
    """One row of the table of a regression.

    Attributes
    ----------
    name : str
    beta, se : float
        Log hazard ratio and its standard error.
    lower, upper : float
        Limits of the interval of ``beta``; ``exp`` of them are those of the hazard ratio.
    z, p : float
        ``beta / se`` and its two-sided p value.
    """

    name: str
    beta: float
    se: float
    lower: float
    upper: float
    z: float
    p: float

    @property
    def hazard_ratio(self) -> float:
        return math.exp(self.beta)


@dataclass(frozen=True)
class ChiSquare:
    """A test statistic, its degrees of freedom and p value."""

    statistic: float
    degrees: int
    p: float

    @classmethod
    def of(cls, statistic: float, degrees: int) -> "ChiSquare":
        return cls(float(statistic), degrees, float(chdtrc(degrees, max(statistic, 0.0))))


def covariance(fit: CoxFit, residuals: CoxResiduals | None = None) -> FloatArray:
    """Return the covariance of the coefficients (P, P).

    Without ``residuals`` the inverse of the (ridge-penalised) information; with them the sandwich
    ``V B V``, which holds when hazards are not proportional or weights were estimated (Lin & Wei
    1989). Patients are taken as independent.

    Raises
    ------
    TrainingError
        If the residuals are of other coefficients, or the penalty has a lasso part: a coefficient
        that may be exactly 0 has no standard error of this kind.
    """
    if fit.penalty.lasso > 0:
        raise TrainingError(
            "Standard errors do not exist for a lasso; refit the chosen covariates without it and "
            "call the intervals conditional on the choice."
        )
    model = np.linalg.inv(fit.penalty.curvature(fit.at.information, fit.at.num_patients))
    model = (model + model.T) / 2
    if residuals is None:
        return np.asarray(model)
    _check_residuals(fit, residuals)
    return np.asarray(model @ residuals.outer @ model)


def coefficients(
    fit: CoxFit, *, residuals: CoxResiduals | None = None, level: float = 0.95
) -> tuple[Coefficient, ...]:
    """Return the regression table; ``residuals`` make its standard errors robust.

    Raises
    ------
    ConfigError
        If ``level`` is not between 0 and 1.
    TrainingError
        See `covariance`.
    """
    if not 0 < level < 1:
        raise ConfigError(f"A confidence level of {level} was asked for; give one in (0, 1).")
    errors = np.sqrt(np.diag(covariance(fit, residuals)))
    width = float(ndtri(0.5 + level / 2))
    rows = []
    for name, b, se in zip(fit.at.names, fit.beta.tolist(), errors.tolist(), strict=True):
        z = b / se
        rows.append(
            Coefficient(name, b, se, b - width * se, b + width * se, z, float(2 * ndtr(-abs(z))))
        )
    return tuple(rows)


def _null(fit: CoxFit) -> CoxSums:
    if fit.null is None:
        raise TrainingError(
            "The sums at beta = 0 are not known, since the fit started elsewhere; ask the "
            "hospitals at 0 and hand the answer to the fit as null."
        )
    return fit.null


def likelihood_ratio_test(fit: CoxFit) -> ChiSquare:
    """Return the test of all coefficients being 0: ``2 (l(b) - l(0))``.

    Raises
    ------
    TrainingError
        If the sums at 0 are not known, or the fit was penalised.
    """
    _unpenalised(fit, "likelihood-ratio")
    return ChiSquare.of(2 * (fit.at.log_likelihood - _null(fit).log_likelihood), len(fit.beta))


def wald_test(fit: CoxFit, residuals: CoxResiduals | None = None) -> ChiSquare:
    """Return the test of all coefficients being 0: ``b' V^-1 b``, robust with ``residuals``."""
    _unpenalised(fit, "Wald")
    statistic = fit.beta @ np.linalg.solve(covariance(fit, residuals), fit.beta)
    return ChiSquare.of(float(statistic), len(fit.beta))


def score_test(fit: CoxFit) -> ChiSquare:
    """Return the test of all coefficients being 0: ``U(0)' I(0)^-1 U(0)``."""
    _unpenalised(fit, "score")
    null = _null(fit)
    return ChiSquare.of(
        float(null.gradient @ np.linalg.solve(null.information, null.gradient)), len(fit.beta)
    )


def _unpenalised(fit: CoxFit, test: str) -> None:
    if fit.penalty.strength > 0:
        raise TrainingError(
            f"The {test} test of a penalised fit has no chi-square distribution; refit without the "
            "penalty."
        )


def proportional_hazards_test(
    fit: CoxFit, residuals: CoxResiduals
) -> tuple[tuple[ChiSquare, ...], ChiSquare]:
    """Test whether hazard ratios drift with time: by covariate, and all together.

    Grambsch & Therneau 1994 (Biometrika 81:515), eq. 3.1 and the approximation of its section 3
    that takes one covariance for all times: with ``g`` the function of time, ``d`` the events,
    ``z = sum (g - mean g) s`` over Schoenfeld residuals ``s`` and ``V`` the coefficients'
    covariance, ``d (V z)_j^2 / (V_jj sum (g - mean g)^2)`` per covariate and
    ``d z' V z / sum (g - mean g)^2`` in all. A small p speaks against proportional hazards.

    Raises
    ------
    TrainingError
        If the residuals are of other coefficients, or all events fell at one time.
    """
    _check_residuals(fit, residuals)
    events = residuals.event_weight
    mean = residuals.time_sum / events
    spread = residuals.time_squares - events * mean**2
    if not spread > 1e-12 * residuals.time_squares:
        raise TrainingError(
            "All events fell at one time, so a drift of hazard ratios over time cannot be tested."
        )
    z = residuals.schoenfeld_time - mean * residuals.schoenfeld
    v = covariance(fit)
    drift = v @ z
    single = events * drift**2 / (np.diag(v) * spread)
    together = events * float(z @ drift) / spread
    each = tuple(ChiSquare.of(float(value), 1) for value in single)
    return each, ChiSquare.of(together, len(z))


def _check_residuals(fit: CoxFit, residuals: CoxResiduals) -> None:
    if residuals.names != fit.at.names or not np.array_equal(residuals.beta, fit.beta):
        raise TrainingError(
            "The sums of residuals are of other coefficients than the fit; ask for them again at "
            "the fitted ones."
        )
    if residuals.num_events == 0:
        raise TrainingError("The sums of residuals hold no event; ask the hospitals again.")
