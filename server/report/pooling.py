"""The hospitals of one role as one body of patients: sums added in the cohort table's order."""

from collections.abc import Iterable
from typing import Literal, TypeVar

from protocol.stats import QUANTITIES, Sums, merge_all
from server.results import Results, SiteValidation

__all__ = ["ROLES", "arm_label", "main_arm", "pooled", "sites_of"]

Role = Literal["train", "external"]
ROLES: tuple[Role, ...] = ("train", "external")
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
    """Return the names of the hospitals of a role, in the order of the cohort table."""
    return [hospital.name for hospital in results.hospitals if hospital.role == role]


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
    )


def _total(parts: Iterable[S | None]) -> S | None:
    present = [part for part in parts if part is not None]
    return merge_all(present) if present else None
