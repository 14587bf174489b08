"""Sums over the hospitals' risk sets at the centre: their common grid, and the baseline hazard."""

from collections.abc import Mapping, Sequence
from typing import Any

from protocol.arrays import Arrays
from protocol.errors import PayloadError, TrainingError
from protocol.risk_grid import MAX_RISK_POINTS, STEPS_MONTHS
from protocol.secure_groups import covers_everything
from protocol.stats import LifeTable, merge_all
from server.baseline_results import BaselineResults
from server.centre import Centre
from server.findings import Findings
from server.secure_questions import SecureQuestions
from shared_models.heads.cox_two_phase import RiskSetSums, baseline_hazard

__all__ = ["common_step", "events_per_hospital", "fit_baseline", "pooled_sums"]

QUESTION = "query.risk_sets"
TOO_SMALL = (
    "on no grid of risk sets are its patients in cells of its own minimum; lower that minimum, add "
    "follow-up, or let the hospital take part as an external one"
)


def events_per_hospital(tables: Sequence[LifeTable], num_hospitals: int) -> float:
    """Return the surveyed events of an average hospital, at least 1: what Cox losses divide by."""
    return max(float(merge_all(tables).events.sum()) / num_hospitals, 1.0)


def common_step(centre: Centre, findings: Findings, arrays: Arrays) -> tuple[int, dict[str, str]]:
    """Return the finest step of a grid on which no cell of a hospital is small, in months.

    In secure sums it is no cell of all together, and nobody is too small.

    Parameters
    ----------
    arrays : Arrays
        Any weights of the network; the cells do not depend on them.

    Returns
    -------
    int
        One of `protocol.risk_grid.STEPS_MONTHS`.
    dict
        Hospitals that are too small for every grid, with the reason in words.

    Raises
    ------
    TrainingError
        If no step serves all others.
    """
    sites = centre.study.hospitals.train
    if covers_everything(centre.study):
        return _summed_step(centre, findings, arrays), {}
    answers = centre.answers(QUESTION, sites, findings.agreed)
    possible = {site: _steps(site, answer) for site, answer in answers.items()}
    left_out = {site: TOO_SMALL for site, steps in possible.items() if not steps}
    serving = [steps for steps in possible.values() if steps]
    common = set(STEPS_MONTHS).intersection(*serving) if serving else set()
    if not common:
        raise _no_step(findings)
    return min(common), left_out


def _no_step(findings: Findings) -> TrainingError:
    return TrainingError(
        "No grid of risk sets keeps every hospital's patients in cells of its own minimum, up to "
        f"{findings.agreed['cuts_months'][-1]:g} months; choose a head that is a sum over "
        "patients, or fewer and larger hospitals."
    )


def _summed_step(centre: Centre, findings: Findings, arrays: Arrays) -> int:
    section, sites = centre.study.secure_aggregation, centre.study.hospitals.train
    end_months = float(findings.agreed["cuts_months"][-1])
    min_cell = 1 if section is None else section.min_cell
    for step in (step for step in STEPS_MONTHS if end_months / step <= MAX_RISK_POINTS):
        pooled, _ = pooled_sums(centre, findings, sites, step, arrays)
        if not pooled.has_small_cell(min_cell):
            return step
    raise _no_step(findings)


def _steps(site: str, answer: Mapping[str, Any]) -> set[int]:
    steps = answer.get("steps")
    if not isinstance(steps, list) or not all(type(step) is int for step in steps):
        raise PayloadError(
            f"The answer of {site} names no steps of a grid of risk sets; both ends must run the "
            "same version."
        )
    return set(steps)


def pooled_sums(
    centre: Centre, findings: Findings, sites: Sequence[str], step_months: int, arrays: Arrays
) -> tuple[RiskSetSums, tuple[str, ...]]:
    """Return the risk sets of all hospitals at the given weights, and who is in them.

    Raises
    ------
    QuorumError
        If too few hospitals answered.
    TrainingError
        If nobody in them had the event.
    """
    agreed = {**findings.agreed, "risk_sets": {"step_months": step_months}}
    if covers_everything(centre.study):
        key = (QUESTION, "")
        asking = centre.sums.setdefault(key, SecureQuestions(centre, QUESTION, sites))
        summed = asking.ask(agreed, arrays)
        present = summed.hospitals
        pooled = RiskSetSums.from_dict(summed.total["sums"].document())
    else:
        answers = centre.answers(QUESTION, sites, agreed, arrays)
        present = tuple(site for site in sites if site in answers)
        pooled = merge_all([RiskSetSums.from_dict(answers[site]["sums"]) for site in present])
    if not pooled.events.any():
        raise TrainingError(
            "None of the hospitals' training patients had the event within the time grid, so Cox's "
            "likelihood has nothing to learn from; wait for follow-up."
        )
    return pooled, present


def fit_baseline(centre: Centre, findings: Findings) -> BaselineResults:
    """Return Breslow's baseline hazard of the trained network, from all hospitals' risk sets.

    One for all, also where each hospital had its own in training: the only one that a hospital that
    never trained can use. It is exact where every event time is on the grid; else events count at
    the next point of the grid and censored patients up to the last one they reached.

    Raises
    ------
    QuorumError
        If too few hospitals answered.
    TrainingError
        If no grid serves them, or nobody had the event.
    """
    step, left_out = findings.risk_step or common_step(centre, findings, findings.prognosis)
    sites = [site for site in centre.study.hospitals.train if site not in left_out]
    pooled, present = pooled_sums(centre, findings, sites, step, findings.prognosis)
    return BaselineResults(
        step_months=step,
        hospitals=present,
        left_out=left_out,
        patients=int(pooled.at_risk[0]),
        events=int(pooled.events.sum()),
        grid_months=pooled.grid_months,
        hazard=tuple(baseline_hazard(pooled).tolist()),
        log_likelihood=pooled.partial_log_likelihood(),
    )
