"""Whose answers are added in one secure sum: those who train, who hold out, who never train.

Constants that enter the models are of the training hospitals alone, and figures of hospitals that
never trained stand beside those of hospitals that did; a sum over all would mix them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from protocol.config import Study
from protocol.evaluation import Role

__all__ = [
    "TOGETHER",
    "Group",
    "asked_together",
    "covers_everything",
    "has_sum",
    "members",
    "role_in",
    "tellers",
]

Group = Literal["train", "internal", "external"]
LEAST = 3
# What the total of a group is called where a hospital's name would stand; no hospital can be.
TOGETHER: Mapping[Group, str] = {
    "train": "training hospitals together",
    "internal": "internal hospitals together",
    "external": "external hospitals together",
}


def members(study: Study, group: Group) -> tuple[str, ...]:
    """Return the hospitals of a group, in the study's order."""
    hospitals = study.hospitals
    groups = {"train": hospitals.train, "internal": hospitals.internal}
    return groups.get(group, hospitals.external)


def asked_together(study: Study, site: str) -> tuple[str, ...]:
    """Return the hospitals whose answers are added to a hospital's own; empty for a stranger."""
    found = [members(study, group) for group in TOGETHER]
    return next((group for group in found if site in group), ())


def covers_everything(study: Study) -> bool:
    """Whether a study's statistics travel in secure sums."""
    section = study.secure_aggregation
    return section is not None and section.cover == "everything"


def has_sum(study: Study, sites: Sequence[str]) -> bool:
    """Whether so many hospitals are asked together that their sum hides each of them."""
    section = study.secure_aggregation
    least = 0 if section is None else max(section.min_hospitals, section.threshold or 0)
    return len(sites) >= max(LEAST, least)


def role_in(study: Study, site: str) -> Role:
    """Return as whose a hospital's patients, or those of a group's total, are judged."""
    outside = site in study.hospitals.external or site == TOGETHER["external"]
    return "external" if outside else "train"


def tellers(study: Study, sites: Iterable[str]) -> tuple[str, ...]:
    """Return the names under which hospitals' answers come, in the order in which sums are added.

    Parameters
    ----------
    sites : iterable of str
        Hospitals of the study; names of groups stay what they are.
    """
    asked = tuple(sites)
    if not covers_everything(study):
        return asked
    found: list[str] = []
    for group, name in TOGETHER.items():
        own = [site for site in members(study, group) if site in asked]
        if has_sum(study, members(study, group)):
            found += [name] if own or name in asked else []
        else:
            found += own
    return tuple(found)
