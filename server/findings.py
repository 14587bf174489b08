"""What a study's stages settled, and how it becomes the results the report draws."""

import hashlib
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from protocol.arrays import Arrays, fingerprint
from protocol.config import Study
from protocol.evaluation import Role
from protocol.secure_groups import role_in, tellers
from protocol.stats.missingness import Missingness
from server.baseline_results import BaselineResults
from server.cause_results import CauseRow
from server.design_results import SubgroupRow
from server.evaluation_results import RoleEvaluation
from server.history import RoundEntry
from server.missed import missed_rounds
from server.missingness import find_defects
from server.regression_results import RegressionResults
from server.results import ALL_TOGETHER, Results

__all__ = ["Findings", "config_sha256", "to_results"]


@dataclass
class Findings:
    """What the stages settled so far.

    Attributes
    ----------
    survey : dict
        Survey document by hospital.
    agreed : dict
        What every later message carries (see `server.agreement`).
    sorting, segmentation, prognosis : Arrays
        Trained weights; empty until their stage ran.
    regression : RegressionResults or None
        The Cox regression, once fitted.
    history : dict
        Entries of the training rounds by stage.
    validation : dict
        Validation document by hospital.
    evaluation : dict
        By role, what the hospitals' further metrics have in common.
    risk_step : tuple or None
        Step of the risk sets' grid, months, and who is too small for any; once it is agreed.
    baseline : BaselineResults or None
        Of a Cox head, once trained.
    causes : dict
        By role, each cause of a network of competing risks.
    subgroups : tuple of SubgroupRow
        The models by vendor, field strength, sex and age, over hospitals.
    """

    survey: dict[str, dict[str, Any]] = field(default_factory=dict)
    agreed: dict[str, Any] = field(default_factory=dict)
    sorting: Arrays = field(default_factory=dict)
    segmentation: Arrays = field(default_factory=dict)
    prognosis: Arrays = field(default_factory=dict)
    regression: RegressionResults | None = None
    history: dict[str, list[RoundEntry]] = field(default_factory=dict)
    validation: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: dict[Role, RoleEvaluation] = field(default_factory=dict)
    risk_step: tuple[int, dict[str, str]] | None = None
    baseline: BaselineResults | None = None
    causes: dict[Role, tuple[CauseRow, ...]] = field(default_factory=dict)
    subgroups: tuple[SubgroupRow, ...] = ()


# What weighs by events weighs nothing without one.
NO_EVENT = "has no event among its training patients, or fewer than its own minimum"
SURVEY_ROW = (
    "patients",
    "events",
    "competing_events",
    "person_years",
    "median_followup_months",
    "vendors",
    "field_strengths_t",
    "covariates",
    "units",
    "refused",
)


def config_sha256(study: Study) -> str:
    """Return the SHA-256 by which results name the configuration they belong to."""
    return hashlib.sha256(study.model_dump_json().encode()).hexdigest()


def to_results(study: Study, findings: Findings, *, simulated: bool = False) -> Results:
    """Return the results of one arm of a study."""
    models = {
        "sort": findings.sorting,
        "segment": findings.segmentation,
        "prognosis": findings.prognosis,
    }
    return Results.of(
        {
            "study": {
                "name": study.name,
                "seed": study.seed,
                "code_version": version("concors"),
                "config_sha256": config_sha256(study),
                "models": {
                    stage: fingerprint(arrays) for stage, arrays in models.items() if arrays
                },
                "simulated": simulated,
                "min_cell": max(answer["min_cell"] for answer in findings.survey.values()),
                "horizon_months": findings.agreed.get("horizon_months", _regression_horizon(study)),
                "cuts_months": findings.agreed.get("cuts_months", ()),
            },
            "hospitals": [
                _hospital(study, name, findings.survey.get(name))
                for name in tellers(study, study.hospitals.all)
            ],
            "training": {
                stage: {"loss": _losses(study, entries), "skipped": _skipped(entries)}
                | _traffic(entries)
                for stage, entries in findings.history.items()
            },
            "missed": missed_rounds(findings.history.values(), study.rounds.max_missed),
            "baseline": findings.baseline,
            "causes": findings.causes,
            "oddities": _oddities(findings),
            "regression": findings.regression,
            "arms": {
                "federated": {"sites": findings.validation, "evaluation": findings.evaluation}
            },
            "subgroups": findings.subgroups,
        }
    )


def _hospital(study: Study, name: str, told: dict[str, Any] | None) -> dict[str, Any]:
    """Return the row of a hospital, or of hospitals together; they may have refused the survey."""
    row: dict[str, Any] = {"name": name, "role": role_in(study, name)}
    if told is None:
        return row | {"patients": None}
    row |= {key: told[key] for key in SURVEY_ROW}
    return row | {"noise_sd": told.get("noise_sd"), "together": told.get("hospitals", ())}


def _oddities(findings: Findings) -> list[dict[str, str]]:
    counts = {
        site: Missingness.from_dict(answer["missingness"])
        for site, answer in findings.survey.items()
        if "missingness" in answer
    }
    return [vars(defect) for defect in find_defects(counts)]


def _regression_horizon(study: Study) -> float | None:
    return study.regression.horizon_months if "regression" in study.stages else None


def _losses(study: Study, entries: list[RoundEntry]) -> dict[str, list[float | None]]:
    if any("together" in entry for entry in entries):
        # No hospital's own loss was seen.
        together = [entry.get("together", {}) for entry in entries]
        return {ALL_TOGETHER: [known.get("metrics", {}).get("loss") for known in together]}
    return {site: [_loss(entry, site) for entry in entries] for site in study.hospitals.train}


def _skipped(entries: list[RoundEntry]) -> dict[str, str]:
    """Return the hospitals that answered every round and weighed nothing in any, and why."""
    sites = {site for entry in entries for site in entry["sites"]}
    return {
        site: NO_EVENT
        for site in sorted(sites)
        if not any(entry["sites"][site]["weight"] for entry in entries if site in entry["sites"])
    }


def _traffic(entries: list[RoundEntry]) -> dict[str, list[int]]:
    counted = [entry for entry in entries if "bytes_down" in entry]
    if len(counted) < len(entries):
        # A run that an earlier version began.
        return {}
    return {
        "bytes_down": [entry["bytes_down"] for entry in entries],
        "bytes_up": [entry["bytes_up"] for entry in entries],
        "num_asked": [len(entry["sites"]) + len(entry["excluded"]) for entry in entries],
    }


def _loss(entry: RoundEntry, site: str) -> float | None:
    contributed = entry["sites"].get(site)
    return contributed["metrics"].get("loss") if contributed else None
