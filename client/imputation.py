"""Multiple imputation at the hospital: it fills in its own gaps and sends normal equations only.

A chain of imputations is a list of steps, each a regression that the centre drew from the summed
equations. The hospital replays the list from the start whenever it is asked, with noise from its
own secret, so that no filled-in table lies on disk, none leaves, and the same list gives the same
table. Axes: N patients, V covariates, A auxiliary columns (complete, never imputed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protocol.errors import DataError
from protocol.stats.normal_equations import INTERCEPT, NormalEquations

__all__ = ["INTERCEPT", "Gaps", "Step", "complete", "equations", "predictors"]

FloatArray = npt.NDArray[np.float64]
MAX_STEPS = 5000


@dataclass(frozen=True)
class Gaps:
    """A hospital's covariates with gaps.

    Attributes
    ----------
    names : tuple of str, length V
    x : float array (N, V)
        Standardised by the common scales, NaN where missing.
    auxiliary_names : tuple of str, length A
        What else predicts: the event and the hazard accumulated by then (White & Royston 2009,
        Stat Med 28:1982), without which imputed covariates would not be related to the outcome.
    auxiliary : float array (N, A)
    """

    names: tuple[str, ...]
    x: FloatArray
    auxiliary_names: tuple[str, ...]
    auxiliary: FloatArray


@dataclass(frozen=True)
class Step:
    """One drawn regression: ``x[target] = predictors coefficients + sigma noise`` where missing."""

    target: str
    coefficients: tuple[float, ...]
    sigma: float

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read a step of a message.

        Raises
        ------
        DataError
            If it is not a target, finite coefficients and a standard deviation of at least 0.
        """
        try:
            step = cls(
                str(values["target"]),
                tuple(float(value) for value in values["coefficients"]),
                float(values["sigma"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "A step of the imputation is not complete; both ends must run the same version."
            ) from error
        if not (np.isfinite(step.coefficients).all() and 0 <= step.sigma < np.inf):
            raise DataError("A step of the imputation is not finite; fit it again.")
        return step


def predictors(gaps: Gaps, target: str) -> tuple[str, ...]:
    """Return the names of what predicts a covariate: intercept, the others, the auxiliary."""
    others = tuple(name for name in gaps.names if name != target)
    return (INTERCEPT, *others, *gaps.auxiliary_names)


def _design(gaps: Gaps, x: FloatArray, target: str) -> FloatArray:
    if target not in gaps.names:
        raise DataError(
            "The imputation names a covariate that the study does not have; both ends must run "
            "the same version."
        )
    others = np.delete(x, gaps.names.index(target), axis=1)
    return np.concatenate([np.ones((len(x), 1)), others, gaps.auxiliary], axis=1)


def complete(gaps: Gaps, steps: Sequence[Step], rng: np.random.Generator) -> FloatArray:
    """Return the covariates with every gap filled, (N, V).

    Gaps start at 0, the common mean. Known values are never changed.

    Parameters
    ----------
    rng : numpy.random.Generator
        The hospital's own, the same at every replay.

    Raises
    ------
    DataError
        If a step does not fit the covariates, or there are too many.
    """
    if len(steps) > MAX_STEPS:
        raise DataError(f"The imputation has more than {MAX_STEPS} steps; ask for fewer rounds.")
    missing = np.isnan(gaps.x)
    x = np.where(missing, 0.0, gaps.x)
    for step in steps:
        design = _design(gaps, x, step.target)
        if len(step.coefficients) != design.shape[1]:
            raise DataError(
                f"A step of the imputation has {len(step.coefficients)} coefficients for "
                f"{design.shape[1]} predictors; both ends must run the same version."
            )
        at = gaps.names.index(step.target)
        # Drawn for everybody, so that a replay does not depend on who has gaps elsewhere.
        noise = rng.standard_normal(len(x))
        drawn = design @ np.array(step.coefficients) + step.sigma * noise
        x[:, at] = np.where(missing[:, at], drawn, x[:, at])
    return x


def equations(gaps: Gaps, x: FloatArray, target: str) -> NormalEquations:
    """Return the normal equations of one covariate over the patients in whom it is known.

    Parameters
    ----------
    x : float array (N, V)
        As `complete` filled it.
    """
    design = _design(gaps, x, target)
    at = gaps.names.index(target)
    known = ~np.isnan(gaps.x[:, at])
    return NormalEquations.of(predictors(gaps, target), target, design[known], x[known, at])
