"""Statistics that hospitals send as sums and the centre adds: one file a kind of statistic."""

from protocol.stats.agreement import QUANTITIES, AgreementSums, Quantity
from protocol.stats.calibration import Calibration
from protocol.stats.concordance import PairCounts
from protocol.stats.cox import CoxSums
from protocol.stats.cox_grid import CoxGridSums
from protocol.stats.cox_hazard import CoxHazard
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.histogram import Histogram, risk_group
from protocol.stats.kaplan_meier import SurvivalCurve
from protocol.stats.lifetable import LifeTable, monthly_grid
from protocol.stats.moments import Moments
from protocol.stats.overlap import OVERLAP_METRICS, OverlapCell, OverlapSums
from protocol.stats.score_table import ScoreTable
from protocol.stats.sums import Sums, merge_all

__all__ = [
    "OVERLAP_METRICS",
    "QUANTITIES",
    "AgreementSums",
    "Calibration",
    "CoxGridSums",
    "CoxHazard",
    "CoxResiduals",
    "CoxSums",
    "Histogram",
    "LifeTable",
    "Moments",
    "OverlapCell",
    "OverlapSums",
    "PairCounts",
    "Quantity",
    "ScoreTable",
    "Sums",
    "SurvivalCurve",
    "merge_all",
    "monthly_grid",
    "risk_group",
]
