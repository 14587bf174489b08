"""The sum of hospitals' answers as a document like one hospital's own, small totals withheld.

Under masks hospitals count exactly; here the total is suppressed as each of them would have
suppressed its own part, by the number of patients that the study states.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from privacy.suppression import suppress_count, suppress_counts, withheld_groups
from protocol.config import Study
from protocol.evaluation import EvaluationPlan
from protocol.stats import LifeTable, OverlapSums, PairCounts
from protocol.stats.brier import BrierSums
from protocol.stats.power_sums import PowerSums
from protocol.stats.sums import Sums
from protocol.stats.tally import Tally
from protocol.stats.vectors import to_vector
from protocol.stats.whole_table import suppressed_whole
from protocol.subgroups import GROUPS
from protocol.survey_grid import STEP_MONTHS
from protocol.units import UNITS
from server.secure_questions import Summed

__all__ = ["DOCUMENTS", "document"]

Document = dict[str, Any]


def document(
    message_type: str, study: Study, agreed: Mapping[str, Any], summed: Summed
) -> Document:
    """Return what the hospitals together answer; empty where they have nobody to tell of."""
    section = study.secure_aggregation
    min_cell = 1 if section is None else section.min_cell
    return DOCUMENTS[message_type](summed, study, agreed, min_cell)


def _there(sums: Sums) -> bool:
    """Whether anybody at all is in a statistic."""
    return bool(to_vector(sums).any())


def _survey(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    total = summed.total
    counts, table = total["counts"].counts(), total["life_table"]
    patients, names = counts["patients"], study.covariates
    enough = patients >= min_cell
    told = counts["person_years_told"] == len(summed.hospitals) and enough
    noise_variance = total["counts"].value("noise_variance")
    return {
        "hospitals": list(summed.hospitals),
        "min_cell": min_cell,
        "patients": patients if enough else None,
        "events": suppress_count(max(counts["events"], 0), min_cell),
        "competing_events": suppress_count(max(counts["competing_events"], 0), min_cell),
        "person_years": total["counts"].value("person_years") if told else None,
        "median_followup_months": _median_months(table) if enough else None,
        "vendors": _listed(total["vendors"], min_cell),
        "units": {name: UNITS[name] for name in names if name in UNITS},
        "field_strengths_t": _listed(total["field_strengths_t"], min_cell, {"3.0": "3"}),
        "refused": _listed(total["refused"], min_cell),
        "covariates": total["covariates"].moments().suppressed(min_cell).to_dict(),
        "missingness": total["missingness"].suppressed(min_cell).to_dict(),
        "life_table": table.suppressed(min_cell).to_dict(),
        "can_train": {stage: counts[stage] for stage in ("segment", "prognosis", "sort")},
        "noise_sd": noise_variance**0.5 if noise_variance > 0 else None,
    }


def _median_months(table: LifeTable) -> float | None:
    """Return the half-year by whose end half of the patients have left observation."""
    left = table.censored.sum(axis=0)
    left[:-1] += table.events.sum(axis=0)
    gone = np.cumsum(left)
    if gone[-1] <= 0:
        return None
    ends = np.append(np.asarray(table.grid_months[1:]), table.grid_months[-1])
    middle = float(ends[int(np.searchsorted(gone, gone[-1] / 2))])
    return float(np.round(middle / STEP_MONTHS) * STEP_MONTHS)


def _listed(
    tally: Tally, min_cell: int, called: Mapping[str, str] | None = None
) -> dict[str, int | None]:
    named = {(called or {}).get(name, name): n for name, n in tally.counts().items() if n > 0}
    return suppress_counts(dict(sorted(named.items())), min_cell)


def _measure(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    moments = summed.total["measurements"].moments()
    return {"measurements": moments.suppressed(min_cell).to_dict()}


def _scores(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    total = summed.total
    at = {key: bins.suppressed(min_cell).to_dict() for key, bins in total["scores_at"].items()}
    return {"scores": total["scores"].suppressed(min_cell).to_dict(), "scores_at": at}


def _sort(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    found = {
        name: sums.suppressed(min_cell).to_dict()
        for name, sums in summed.total["sorting"].items()
        if _there(sums)
    }
    return {"sorting": found} if found else {}


def _overlap(powers: PowerSums) -> OverlapSums:
    nobody = OverlapSums.empty()
    return OverlapSums(nobody.classes, nobody.phases, powers.moments())


def _segment(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    overlap = _overlap(summed.total["overlap"]["moments"])
    if int((overlap.moments.n + overlap.moments.missing).max()) < min_cell:
        return {}
    agreement = {
        name: powers.agreement().suppressed(min_cell).to_dict()
        for name, powers in summed.total["agreement"].items()
        if _there(powers)
    }
    return {"overlap": overlap.suppressed(min_cell).to_dict(), "agreement": agreement}


def _regression(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    pairs = summed.total["regression_pairs"]
    if pairs.num_patients < max(min_cell, 1):
        return {}
    return {"regression_pairs": pairs.suppressed(min_cell).to_dict()}


def _prognosis(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    total, evaluation = summed.total, summed.total["evaluation"]
    table = total["life_table"]
    if float(table.num_patients.sum()) < max(min_cell, 1):
        return {}
    counted = {name: total[name] for name in ("pairs", "calibration") if _there(total[name])}
    found = {name: sums.suppressed(min_cell).to_dict() for name, sums in counted.items()}
    further: Document = {
        "score_table": evaluation["score_table"].table().suppressed(min_cell).to_dict()
    }
    if _there(evaluation["bands"]):
        further["bands"] = evaluation["bands"].suppressed(min_cell).to_dict()
    if "moves" in evaluation and _there(evaluation["moves"]):
        further["moves"] = suppressed_whole(evaluation["moves"], min_cell).to_dict()
    return {**found, "life_table": table.suppressed(min_cell).to_dict(), "evaluation": further}


def _told(brier: BrierSums, min_cell: int) -> set[float]:
    """Return the horizons that stand apart from their neighbours by enough patients."""
    kept = brier.suppressed(min_cell)
    pairs = zip(kept.horizons_months, kept.withheld.tolist(), strict=True)
    return {horizon for horizon, withheld in pairs if not withheld}


def _weighted(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    total, plan = summed.total, EvaluationPlan.from_dict(agreed.get("evaluation"))
    sums = total["evaluation"]
    if not int(sums["brier"].num_patients.max()):
        return {}
    told = _told(sums["brier"], min_cell)
    horizons = {f"{horizon:g}" for horizon in plan.horizons_months if horizon in told}
    named = {name: sums[name].suppressed(min_cell).to_dict() for name in NAMED}
    auc = {
        key: pairs.suppressed(min_cell).to_dict()
        for key, pairs in sums["auc"].items()
        if key in horizons
    }
    steps = [
        step.to_dict()
        if step.horizon_months in told
        else step.empty(step.curve, step.horizon_months).to_dict()
        for step in _in_order(total["steps"], min_cell)
    ]
    return {"evaluation": {**named, "auc": auc}, "steps": steps}


NAMED = ("uno", "antolini", "brier", "d_calibration")


def _in_order(parts: Mapping[str, Any], min_cell: int) -> list[Any]:
    return [parts[str(place)].suppressed(min_cell) for place in range(len(parts))]


def _calibration(
    summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int
) -> Document:
    return {
        name: [sums.to_dict() for sums in _in_order(parts, min_cell)]
        for name, parts in summed.total.items()
    }


def _causes(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    total = summed.total
    if float(total["table"].table.num_patients.sum()) < max(min_cell, 1):
        return {}
    predicted = {
        name: powers.moments().suppressed(min_cell).to_dict()
        for name, powers in total["predicted"].items()
    }
    pairs = {name: sums.suppressed(min_cell).to_dict() for name, sums in total["pairs"].items()}
    table = total["table"].suppressed(min_cell).to_dict()
    return {"table": table, "predicted": predicted, "pairs": pairs}


def _tally(sums: Any) -> tuple[int, ...]:
    """Return the counts of a group that must not be small: patients, patients with the event."""
    if isinstance(sums, PairCounts):
        return (sums.num_patients, sums.num_events)
    powers = sums["moments"]
    return (int((powers.n + powers.missing).max()),)


def _subgroups(summed: Summed, study: Study, agreed: Mapping[str, Any], min_cell: int) -> Document:
    found: Document = {}
    for attribute in GROUPS:
        groups = summed.total["subgroups"][attribute]
        counts = {group: _tally(sums) for group, sums in groups.items()}
        hidden = withheld_groups(counts, min_cell)
        told = [group for group, row in counts.items() if row[0] and group not in hidden]
        found[attribute] = {group: _figures(groups[group], min_cell) for group in told}
    return {"subgroups": found}


def _figures(sums: Any, min_cell: int) -> Document:
    if isinstance(sums, PairCounts):
        return sums.to_dict()
    return _overlap(sums["moments"]).suppressed(min_cell).to_dict()


DOCUMENTS: Mapping[str, Callable[[Summed, Study, Mapping[str, Any], int], Document]] = {
    "query.survey": _survey,
    "query.measure": _measure,
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
