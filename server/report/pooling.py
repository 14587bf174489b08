"""The hospitals of one role as one body of patients: sums added in the cohort table's order."""

from collections.abc import Iterable
from typing import TypeVar

from protocol.evaluation import Role
from protocol.stats import QUANTITIES, Sums, merge_all
from server.evaluation_results import SiteEvaluation
from server.results import Results, SiteValidation

__all__ = ["arm_label", "hospitals_of", "main_arm", "pooled", "sites_of"]

S = TypeVar("S", bound=Sums)


def main_arm(results: Results) -> str | None:
    """Return the arm the report is about: federated, or the first there is."""
    return "federated" if "federated" in results.arms else next(iter(results.arms), None)


def arm_label(arm: str) -> str:
    """Return what a reader calls an arm."""
    if arm.startswith("local/"):
        return f"Local only, {arm.removeprefix('local/')}"
    return {"federated": "Federated", "pooled": "Pooled data"}[arm]


def sites_of(results: Results, role: Role) -> list[str]:
    """Return under which names a role's sums may stand, in the order of the cohort table.

    Hospitals that are told of together are so in the study itself, and one by one in arms that are
    no federation.
    """
    own = (hospital for hospital in results.hospitals if hospital.role == role)
    return [name for hospital in own for name in (hospital.name, *hospital.together)]


def hospitals_of(results: Results, role: Role) -> list[str]:
    """Return the hospitals of a role, also those that are told of together."""
    own = (hospital for hospital in results.hospitals if hospital.role == role)
    return [name for hospital in own for name in hospital.together or (hospital.name,)]


def pooled(results: Results, arm: str, role: Role) -> SiteValidation:
    """Add what the hospitals of a role sent about an arm; absent statistics stay absent."""
    sites = results.arms[arm].sites
    sent = [sites[name] for name in sites_of(results, role) if name in sites]
    agreement = {}
    for quantity in QUANTITIES:
        total = _total(site.agreement.get(quantity) for site in sent)
        if total is not None and total.n:
            agreement[quantity] = total
    return SiteValidation(
        overlap=_total(site.overlap for site in sent),
        agreement=agreement,
        pairs=_total(site.pairs for site in sent),
        regression_pairs=_total(site.regression_pairs for site in sent),
        life_table=_total(site.life_table for site in sent),
        calibration=_total(site.calibration for site in sent),
        evaluation=_evaluation([site.evaluation for site in sent if site.evaluation is not None]),
    )


def _evaluation(sent: list[SiteEvaluation]) -> SiteEvaluation | None:
    if not sent:
        return None
    auc = sorted({key for site in sent for key in site.auc}, key=float)
    errors = sorted({key for site in sent for key in site.calibration_errors}, key=float)
    totals = ((key, _total(site.auc.get(key) for site in sent)) for key in auc)
    distances = ((key, _total(site.calibration_errors.get(key) for site in sent)) for key in errors)
    return SiteEvaluation(
        score_table=_total(site.score_table for site in sent),
        bands=_total(site.bands for site in sent),
        moves=_total(site.moves for site in sent),
        uno=_total(site.uno for site in sent),
        antolini=_total(site.antolini for site in sent),
        auc={key: total for key, total in totals if total is not None},
        brier=_total(site.brier for site in sent),
        d_calibration=_total(site.d_calibration for site in sent),
        calibration_errors={key: total for key, total in distances if total is not None},
    )


def _total(parts: Iterable[S | None]) -> S | None:
    present = [part for part in parts if part is not None]
    return merge_all(present) if present else None
