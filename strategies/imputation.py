"""Multiple imputation by chained equations, from summed normal equations; Rubin's rules.

S. van Buuren, Flexible Imputation of Missing Data, 2nd ed. 2018: Bayesian linear regression
(algorithm 3.1, ``norm``) inside chained equations (algorithm 4.3). A covariate coded 0/1 is imputed
as a number and not rounded, since rounding biases (Horton et al. 2003, Am Stat 57:229). Values are
taken to be missing at random given the others and the outcome; a covariate that is absent at a
whole hospital is imputed from the other hospitals' relations, as if those held there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from protocol.errors import ConfigError, TrainingError
from protocol.stats.normal_equations import NormalEquations

__all__ = ["Drawn", "Pooled", "chain", "draw", "pool", "solve"]

FloatArray = npt.NDArray[np.float64]
# mice's default: keeps nearly collinear predictors solvable and moves nothing else.
RIDGE = 1e-5


@dataclass(frozen=True)
class Drawn:
    """One regression drawn from its posterior: the next step of a chain."""

    target: str
    coefficients: tuple[float, ...]
    sigma: float


Ask = Callable[[Sequence[Drawn], str], NormalEquations]


def solve(sums: NormalEquations) -> tuple[FloatArray, FloatArray, float]:
    """Return least squares ``b`` (P,), ``(X'X)^-1`` (P, P) and the residual sum of squares.

    ``X'X`` gets 1e-5 of its diagonal added, as in mice.
    """
    inverse = np.linalg.inv(sums.xx + RIDGE * np.diag(np.diag(sums.xx) + 1e-12))
    inverse = (inverse + inverse.T) / 2
    b = inverse @ sums.xy
    residual = sums.yy - 2 * float(b @ sums.xy) + float(b @ sums.xx @ b)
    return np.asarray(b), np.asarray(inverse), max(residual, 0.0)


def draw(sums: NormalEquations, rng: np.random.Generator) -> Drawn:
    """Draw a regression from its posterior under a flat prior (van Buuren, algorithm 3.1).

    ``sigma^2 = RSS / chi^2(n - p)``, ``coefficients = b + sigma L z``, ``L L' = (X'X)^-1``.

    Raises
    ------
    TrainingError
        If the target is known in no more patients than there are predictors.
    """
    width = len(sums.names)
    if sums.n <= width:
        raise TrainingError(
            f"'{sums.target[0]}' is known in too few patients to be imputed from {width} "
            "predictors; leave it out or use fewer covariates."
        )
    b, inverse, residual = solve(sums)
    sigma = math.sqrt(residual / float(rng.chisquare(sums.n - width)))
    b = b + sigma * (np.linalg.cholesky(inverse) @ rng.standard_normal(width))
    return Drawn(sums.target[0], tuple(b.tolist()), sigma)


def chain(
    ask: Ask, targets: Sequence[str], iterations: int, rng: np.random.Generator
) -> tuple[Drawn, ...]:
    """Return the steps of one imputation.

    Parameters
    ----------
    ask : callable
        ``(steps so far, target) -> NormalEquations`` summed over the hospitals, in a fixed order.
    targets : sequence of str
        Covariates with gaps, those with fewest first.
    iterations : int
        Passes over the targets, at least 1; 5 to 20 are usual.
    rng : numpy.random.Generator
        The centre's. The noise of a patient's value is drawn by the hospital, from its own.

    Raises
    ------
    ConfigError
        If ``iterations`` is below 1.
    TrainingError
        If a target is known in too few patients.
    """
    if iterations < 1:
        raise ConfigError(
            f"{iterations} iterations of the imputation cannot be; ask for 1 or more."
        )
    steps: list[Drawn] = []
    for _ in range(iterations):
        for target in targets:
            steps.append(draw(ask(tuple(steps), target), rng))
    return tuple(steps)


@dataclass(frozen=True)
class Pooled:
    """Coefficients over imputations.

    Attributes
    ----------
    beta, se : float array (P,)
    degrees : float array (P,)
        Of the t distribution of ``beta / se``; infinite where nothing was missing.
    missing_information : float array (P,)
        Share of the variance that is due to missing values, in [0, 1].
    lower, upper : float array (P,)
        95 % interval.
    p : float array (P,)
        Two-sided.
    """

    beta: FloatArray
    se: FloatArray
    degrees: FloatArray
    missing_information: FloatArray
    lower: FloatArray
    upper: FloatArray
    p: FloatArray


def pool(beta: npt.ArrayLike, se: npt.ArrayLike) -> Pooled:
    """Combine M fits by Rubin's rules (Rubin 1987, chapter 3).

    ``T = W + (1 + 1/M) B``, ``lambda = (1 + 1/M) B / T``, degrees of freedom
    ``(M - 1) / lambda^2``.

    Parameters
    ----------
    beta, se : float array (M, P)
        Of each imputation.

    Raises
    ------
    ConfigError
        If there are fewer than two imputations or the shapes differ.
    """
    each, error = np.asarray(beta, np.float64), np.asarray(se, np.float64)
    if each.ndim != 2 or each.shape != error.shape or len(each) < 2:
        raise ConfigError(
            f"Rubin's rules were given estimates of shape {each.shape} and errors of "
            f"{error.shape}; give both for at least two imputations."
        )
    number = len(each)
    mean, within = each.mean(axis=0), (error**2).mean(axis=0)
    between = (1 + 1 / number) * each.var(axis=0, ddof=1)
    total = within + between
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    # Without missing values the fits are equal to rounding, and the normal distribution holds.
    share = np.where(share < 1e-12, 0.0, share)
    degrees = np.where(share > 0, (number - 1) / np.where(share > 0, share, 1.0) ** 2, 1e12)
    spread = np.sqrt(total)
    half = stdtrit(degrees, 0.975) * spread
    t = np.divide(np.abs(mean), spread, out=np.zeros_like(mean), where=spread > 0)
    return Pooled(
        beta=mean,
        se=spread,
        degrees=np.where(share > 0, degrees, np.inf),
        missing_information=share,
        lower=mean - half,
        upper=mean + half,
        p=2 * stdtr(degrees, -t),
    )
