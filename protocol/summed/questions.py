"""The sums of nobody: for each question the statistics that its answer holds, all of them 0.

Both ends build them from the question alone, so a vector needs no description of itself, and a
hospital masks nothing that the question did not ask for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from protocol.config import Study
from protocol.evaluation import (
    SCORE_BINS,
    EvaluationPlan,
    Role,
    group_names,
    horizon_key,
)
from protocol.public_ranges import usual_ranges
from protocol.risk_grid import risk_grid
from protocol.series import SEQUENCES, VIEWS
from protocol.stats import (
    QUANTITIES,
    Calibration,
    Histogram,
    LifeTable,
    OverlapSums,
    PairCounts,
    monthly_grid,
)
from protocol.stats.agreement_powers import AgreementPowers
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.confusion import ConfusionSums
from protocol.stats.cox import CoxSums
from protocol.stats.cox_grid import CoxGridSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.cumulative_incidence import CauseTable
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table
from protocol.stats.missingness import Missingness
from protocol.stats.normal_equations import INTERCEPT, NormalEquations
from protocol.stats.power_sums import PowerSums
from protocol.stats.reclassification import MOVES
from protocol.stats.risk_sums import RiskSums
from protocol.stats.score_counts import ScoreCounts
from protocol.stats.sums import require
from protocol.stats.tally import Tally
from protocol.stats.weighted_pairs import WeightedPairs
from protocol.subgroups import GROUPS
from protocol.summed.survey_lists import COUNTED, REFUSED_KINDS
from protocol.summed.tree import Tree
from protocol.survey_grid import survey_grid

__all__ = ["NOBODY", "nobody"]

Agreed = Mapping[str, Any]
SHARE = (0.0, 1.0)
DISTANCE_MM = (0.0, 20.0)
# What the hospitals' residuals are related to; `client.cox_residuals`' default.
TRANSFORM = "log"
MISSING = " missing"


def nobody(message_type: str, study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    """Return the sums of nobody for one question.

    Parameters
    ----------
    agreed : mapping
        Of the question.
    role : {"train", "external"}
        Of the hospitals that are asked.
    has_model : bool
        Whether the question carries weights.

    Raises
    ------
    PayloadError
        If there is no such sum.
    """
    make = NOBODY.get(message_type)
    require(make is not None, f"There is no secure sum of the answers to '{message_type}'.")
    return make(study, agreed, role, has_model) if make is not None else {}


def _survey(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    names = study.covariates
    return {
        "counts": Tally.empty(COUNTED),
        "vendors": Tally.empty(GROUPS["vendor"]),
        "field_strengths_t": Tally.empty(GROUPS["field_strength_t"]),
        "refused": Tally.empty(REFUSED_KINDS),
        "covariates": PowerSums.empty(names, usual_ranges(names, study)),
        "missingness": Missingness.empty(names),
        "life_table": LifeTable.empty(survey_grid(study), ("all",)),
    }


def _measure(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    names = study.prognosis.measurements
    return {"measurements": PowerSums.empty(names, usual_ranges(names, study))}


def _scores(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    bins = Histogram.empty(0.0, 1.0, SCORE_BINS)
    horizons = [horizon_key(horizon) for horizon in agreed["horizons_months"]]
    return {"scores": bins, "scores_at": dict.fromkeys(horizons, bins)}


def _sort(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    found = {"sequence": ConfusionSums.empty(SEQUENCES), "view": ConfusionSums.empty(VIEWS)}
    return {"sorting": found}


def _overlap() -> Tree:
    names = OverlapSums.empty().moments.names
    ranges = [SHARE if name.startswith("dice/") else DISTANCE_MM for name in names]
    return {"moments": PowerSums.empty(names, ranges)}


def _segment(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    agreement = {name: AgreementPowers.empty(name) for name in QUANTITIES}
    return {"overlap": _overlap(), "agreement": agreement}


def _tau_months(study: Study, agreed: Agreed) -> float:
    return float(agreed.get("horizon_months", study.regression.horizon_months))


def _regression(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    tau_months = _tau_months(study, agreed)
    return {"regression_pairs": PairCounts.empty(tau_months, study.validate_.bootstrap)}


def _prognosis(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    plan = EvaluationPlan.from_dict(agreed.get("evaluation"))
    horizon = float(agreed["horizon_months"])
    grid = monthly_grid(horizon)
    evaluation: dict[str, Any] = {
        "score_table": ScoreCounts.empty(plan.score_edges, plan.grid_months),
        "bands": band_table([], [], [], thresholds=plan.thresholds, grid_months=plan.grid_months),
    }
    if plan.baseline_months:
        evaluation["moves"] = LifeTable.empty(plan.grid_months, MOVES)
    return {
        "pairs": PairCounts.empty(horizon, study.validate_.bootstrap),
        "life_table": LifeTable.empty(grid, group_names(study.validate_.risk_groups)),
        "calibration": Calibration.empty(tuple(agreed["calibration_cuts"]), grid),
        "evaluation": evaluation,
    }


def _steps(plan: EvaluationPlan, role: Role) -> Tree:
    own = [asked for asked in plan.curves if asked.role == role]
    steps = (CalibrationStep.empty(asked.curve, asked.horizon_months) for asked in own)
    return {str(place): step for place, step in enumerate(steps)}


def _weighted(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    plan, section = EvaluationPlan.from_dict(agreed.get("evaluation")), study.validate_
    end, number = plan.end_months, section.bootstrap
    cuts = {cut for cut in agreed["cuts_months"] if cut <= end}
    evaluation = {
        "uno": WeightedPairs.empty("uno", end, number),
        "antolini": WeightedPairs.empty("antolini", end, number),
        "brier": BrierSums.empty(tuple(sorted(cuts | set(plan.horizons_months))), number),
        "d_calibration": DCalibration.empty(section.calibration_groups),
        "auc": {
            horizon_key(horizon): WeightedPairs.empty("auc", horizon, number)
            for horizon in plan.horizons_months
        },
    }
    return {"evaluation": evaluation, "steps": _steps(plan, role)}


def _calibration(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    plan = EvaluationPlan.from_dict(agreed.get("evaluation"))
    if agreed.get("calibration_fitted") is not True:
        return {"steps": _steps(plan, role)}
    return {"errors": {place: CalibrationErrors.empty() for place in _steps(plan, role)}}


def _causes(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    names, cuts = study.prognosis.causes, [float(cut) for cut in agreed["cuts_months"]]
    ends = tuple(f"{cut:g}" for cut in cuts)
    shares = PowerSums.empty(ends, [SHARE] * len(ends))
    pairs = PairCounts.empty(cuts[-1], study.validate_.bootstrap)
    return {
        "table": CauseTable.empty((0.0, *cuts), names),
        "predicted": dict.fromkeys(names, shares),
        "pairs": dict.fromkeys(names, pairs),
    }


def _subgroups(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    pairs = PairCounts.empty(_tau_months(study, agreed), study.validate_.bootstrap)
    one = _overlap() if agreed.get("judged") == "segment" else pairs
    return {"subgroups": {name: dict.fromkeys(groups, one) for name, groups in GROUPS.items()}}


def _cox(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    section, asked = study.regression, agreed["cox"]
    names = (*section.names, *(name + MISSING for name in asked["indicators"]))
    want, beta = asked["want"], [float(value) for value in asked["beta"]]
    if want == "sums" and section.form == "grid":
        return {"sums": CoxGridSums.empty(names, asked["grid_months"], beta)}
    if want == "sums":
        return {"sums": CoxSums.empty(names, beta, section.ties)}
    if want == "residuals":
        return {"residuals": CoxResiduals.empty(names, beta, TRANSFORM)}
    if want == "equations":
        target = str(asked["impute"]["target"])
        others = (name for name in section.names if name != target)
        predictors = (INTERCEPT, *others, "event", "hazard")
        return {"equations": NormalEquations.empty(predictors, target)}
    require(want == "concordance", "The question about a Cox regression wants what nobody sums.")
    pairs = PairCounts.empty(_tau_months(study, agreed))
    return {"drawn": pairs, "original": pairs}


def _risk_sets(study: Study, agreed: Agreed, role: Role, has_model: bool) -> Tree:
    # Which steps of a grid are possible is asked of nobody: it is the total's cells that count.
    require(has_model, "Risk sets are summed at given weights; the question has none.")
    step = int(agreed["risk_sets"]["step_months"])
    return {"sums": RiskSums.empty(risk_grid(float(agreed["cuts_months"][-1]), step))}


# By message type: (study, agreed, role, whether weights travel) to the sums of nobody.
NOBODY: Mapping[str, Callable[[Study, Agreed, Role, bool], Tree]] = {
    "query.survey": _survey,
    "query.measure": _measure,
    "query.cox": _cox,
    "query.risk_sets": _risk_sets,
    "query.scores": _scores,
    "evaluate.sort": _sort,
    "evaluate.segment": _segment,
    "evaluate.regression": _regression,
    "evaluate.prognosis": _prognosis,
    "evaluate.causes": _causes,
    "evaluate.weighted": _weighted,
    "evaluate.calibration": _calibration,
    "evaluate.subgroups": _subgroups,
}
