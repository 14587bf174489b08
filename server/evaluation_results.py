"""How far predictions are right, as it stands in ``results.json``: sums by hospital, fits by role.

Indices, scores and curves are computed from these by the report, and by anybody else.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from protocol.stats import LifeTable, ScoreTable
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.d_calibration import DCalibration
from protocol.stats.weighted_pairs import WeightedPairs
from server.sums_fields import ENCODE, Frozen, decoder

__all__ = ["CalibrationResult", "RoleEvaluation", "SiteEvaluation"]

ScoreTableField = Annotated[ScoreTable, BeforeValidator(decoder(ScoreTable)), ENCODE]
LifeTableField = Annotated[LifeTable, BeforeValidator(decoder(LifeTable)), ENCODE]
PairsField = Annotated[WeightedPairs, BeforeValidator(decoder(WeightedPairs)), ENCODE]
BrierField = Annotated[BrierSums, BeforeValidator(decoder(BrierSums)), ENCODE]
ErrorsField = Annotated[CalibrationErrors, BeforeValidator(decoder(CalibrationErrors)), ENCODE]
DField = Annotated[DCalibration, BeforeValidator(decoder(DCalibration)), ENCODE]


class SiteEvaluation(Frozen):
    """The sums one hospital sent in the two passes; what it withheld is empty or absent.

    Attributes
    ----------
    score_table : ScoreTable or None
        Patients by score, time and status, for pairs across hospitals.
    bands, moves : LifeTable or None
        By band of predicted risk (decision curve); of patients moved up and down against the Cox
        regression (net reclassification).
    uno, antolini, auc : WeightedPairs
        Within the hospital; AUC by horizon, ``"60"``.
    brier : BrierSums or None
        At the horizons and the ends of the intervals.
    d_calibration : DCalibration or None
    calibration_errors : dict of str to CalibrationErrors
        Distances to the role's fitted calibration curve, by horizon.
    """

    score_table: ScoreTableField | None = None
    bands: LifeTableField | None = None
    moves: LifeTableField | None = None
    uno: PairsField | None = None
    antolini: PairsField | None = None
    auc: dict[str, PairsField] = Field(default_factory=dict)
    brier: BrierField | None = None
    d_calibration: DField | None = None
    calibration_errors: dict[str, ErrorsField] = Field(default_factory=dict)


class CalibrationResult(Frozen):
    """A calibration curve of the hospitals of one role at one horizon.

    Attributes
    ----------
    form : str
        ``intercept``, ``linear`` or ``spline``, see `protocol.stats.calibration_curve`.
    knots, coefficients : tuple of float
        Of the curve; no coefficient where it could not be fitted.
    covariance : tuple of tuple of float
        Of the coefficients, robust.
    patients, cases, controls : int
        In the sums.
    rounds : int
        Questions it took.
    why : str
        Why there is no curve.
    """

    horizon_months: float = Field(gt=0)
    form: str
    knots: tuple[float, ...] = ()
    coefficients: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    patients: int = Field(0, ge=0)
    cases: int = Field(0, ge=0)
    controls: int = Field(0, ge=0)
    rounds: int = Field(0, ge=0)
    why: str = ""


class RoleEvaluation(Frozen):
    """What the hospitals of one role have in common.

    Attributes
    ----------
    horizons_months, thresholds : tuple of float
        When predictions were judged; the points of the decision curve.
    grid_months, censoring : tuple of float
        The grid, and G at its points: the probability of being still under observation.
    calibration : tuple of CalibrationResult
        By horizon and form.
    """

    horizons_months: tuple[float, ...]
    thresholds: tuple[float, ...]
    grid_months: tuple[float, ...]
    censoring: tuple[float, ...]
    calibration: tuple[CalibrationResult, ...] = ()
