"""The Cox regression as it stands in ``results.json``: one row a coefficient, tests, baseline."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ChiSquareTest", "PenaltyCurve", "RegressionResults", "RegressionRow"]

Probability = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegressionRow(_Frozen):
    """One coefficient, per unit of the covariate as the dictionary (or the study) counts it.

    Attributes
    ----------
    beta, se, lower, upper : float
        Log hazard ratio, its standard error and 95 % interval; no error of a lasso.
    z, p : float
        ``beta / se`` and its two-sided p value.
    robust_se : float or None
        Sandwich standard error, which does not need proportional hazards.
    missing_information : float or None
        Share of the variance that is due to missing values, after multiple imputation.
    drift_p : float or None
        Test of the hazard ratio's drift over time; small speaks against proportional hazards.
    """

    name: str
    beta: float
    se: float | None = None
    lower: float | None = None
    upper: float | None = None
    z: float | None = None
    p: Probability | None = None
    robust_se: float | None = None
    drift_p: Probability | None = None
    missing_information: Probability | None = None


class ChiSquareTest(_Frozen):
    """A test statistic, its degrees of freedom and p value."""

    statistic: float
    degrees: int = Field(ge=1)
    p: Probability


class PenaltyCurve(_Frozen):
    """How the penalty was chosen.

    Attributes
    ----------
    fold_by : {"patients", "hospitals"}
        What a fold is: a share of each hospital's patients, or one hospital.
    folds : int
    strengths : tuple of float
        Candidates, strongest first.
    scores : tuple of float
        Cross-validated partial log-likelihood of each, the sum over folds; higher is better.
    standard_errors : tuple of float
        Of each sum, from its spread over the folds.
    """

    fold_by: Literal["patients", "hospitals"]
    folds: int = Field(ge=2)
    strengths: tuple[float, ...] = Field(min_length=1)
    scores: tuple[float, ...]
    standard_errors: tuple[float, ...]


class RegressionResults(_Frozen):
    """A fitted Cox regression.

    Attributes
    ----------
    hospitals : tuple of str
        Those whose sums are in it.
    rounds : int
        How often they were asked.
    log_likelihood, null_log_likelihood : float
        Partial log-likelihood at the coefficients and at 0; higher is better. After multiple
        imputation the means over the imputed data.
    imputations : int
        Imputed data sets; 0 without imputation.
    coarse_months : float
        Longest span over which a hospital moved its times together before it sent sums (pooled
        form); 0 where none did.
    tests : dict of str to ChiSquareTest
        ``likelihood_ratio``, ``wald``, ``score`` (all coefficients are 0) and
        ``proportional_hazards``, as far as they exist.
    penalty_curve : PenaltyCurve or None
        How ``penalty`` was chosen, where the study left it open.
    baseline_months, baseline_cumulative_hazard : tuple of float
        Of the pooled form, for an average patient (every covariate at the consortium's mean).
    """

    form: Literal["stratified", "grid"]
    ties: Literal["efron", "breslow"]
    penalty: float = Field(ge=0)
    l1_ratio: float = Field(ge=0, le=1)
    hospitals: tuple[str, ...]
    patients: int = Field(ge=0)
    events: int = Field(ge=0)
    rounds: int = Field(ge=0)
    log_likelihood: float
    null_log_likelihood: float | None = None
    coarse_months: float = Field(0.0, ge=0)
    imputations: int = Field(0, ge=0)
    rows: tuple[RegressionRow, ...]
    tests: dict[str, ChiSquareTest] = Field(default_factory=dict)
    penalty_curve: PenaltyCurve | None = None
    baseline_months: tuple[float, ...] = ()
    baseline_cumulative_hazard: tuple[float, ...] = ()
