"""The models by vendor, field strength, sex and age band: asked, and added over the hospitals."""

from collections.abc import Mapping
from typing import Any

from protocol.arrays import Arrays
from protocol.errors import PayloadError
from protocol.secure_groups import tellers
from protocol.stats import OverlapSums, PairCounts, Sums, merge_all
from protocol.subgroups import GROUPS
from server.centre import Centre
from server.design_results import SubgroupRow
from server.findings import Findings
from server.judgements import Overlap, Ranking
from server.telling import answered_by, ask_all

__all__ = ["ask_subgroups", "merged"]

TOPIC = "evaluate.subgroups"
KINDS: Mapping[str, type[Sums]] = {
    "segment": OverlapSums,
    "regression": PairCounts,
    "prognosis": PairCounts,
}
FIGURES = {"segment": "overlap", "regression": "regression", "prognosis": "network"}


def ask_subgroups(centre: Centre, findings: Findings) -> tuple[SubgroupRow, ...]:
    """Ask the validating hospitals about every model there is and return the groups' figures.

    Raises
    ------
    QuorumError
        If too few hospitals answered.
    PayloadError
        If an answer names a group that does not exist, or sums that do not fit each other.
    """
    study = centre.study
    models: dict[str, Arrays | None] = {}
    if findings.segmentation:
        models["segment"] = findings.segmentation
    # As the validate stage: a regression of everybody has nobody left to be judged on.
    if findings.regression and study.regression.patients == "training":
        models["regression"] = None
    if findings.prognosis:
        models["prognosis"] = findings.prognosis
    answers = {
        model: ask_all(
            centre,
            TOPIC,
            study.hospitals.validating,
            findings.agreed | {"judged": model},
            arrays,
            may_decline=True,
        )
        for model, arrays in models.items()
    }
    documents = {
        model: {site: document.get("subgroups", {}) for site, document in sent.items()}
        for model, sent in answers.items()
    }
    external = study.hospitals.external
    internal = tuple(site for site in study.hospitals.validating if site not in external)
    size = {
        name: len(answered_by(centre, TOPIC, name)) for sent in answers.values() for name in sent
    }
    return (
        *merged("train", tellers(study, internal), documents, size),
        *merged("external", tellers(study, external), documents, size),
    )


def merged(
    role: str,
    sites: tuple[str, ...],
    documents: Mapping[str, Mapping[str, Any]],
    hospitals: Mapping[str, int] | None = None,
) -> tuple[SubgroupRow, ...]:
    """Return one row a group that any hospital told of, in the order of `GROUPS`.

    Parameters
    ----------
    role : {"train", "external"}
    sites : tuple of str
        The role's hospitals, in the order in which their sums are added.
    documents : mapping
        By model and hospital: attribute, group, sums.
    hospitals : mapping, optional
        How many hospitals tell together under a name, where it is not one.

    Raises
    ------
    PayloadError
        If a document names an attribute or group that does not exist.
    """
    parts: dict[tuple[str, str], dict[str, list[Sums]]] = {}
    told_by: dict[tuple[str, str], set[str]] = {}
    for model, sent in documents.items():
        for site in sites:
            for attribute, groups in _checked(site, sent.get(site, {})).items():
                for group, values in groups.items():
                    key = (attribute, group)
                    sums = KINDS[model].from_dict(values)
                    parts.setdefault(key, {}).setdefault(model, []).append(sums)
                    told_by.setdefault(key, set()).add(site)
    order = [(attribute, group) for attribute, groups in GROUPS.items() for group in groups]
    return tuple(
        SubgroupRow.model_validate(
            {
                "role": role,
                "attribute": key[0],
                "group": key[1],
                "hospitals": sum((hospitals or {}).get(name, 1) for name in told_by[key]),
                **{FIGURES[model]: _figure(merge_all(s)) for model, s in parts[key].items()},
            }
        )
        for key in order
        if key in parts
    )


def _checked(site: str, document: Any) -> dict[str, dict[str, Any]]:
    known = isinstance(document, dict) and all(
        attribute in GROUPS and isinstance(groups, dict) and set(groups) <= set(GROUPS[attribute])
        for attribute, groups in document.items()
    )
    if not known:
        raise PayloadError(
            f"{site} judged a group of patients that does not exist; both ends must run the same "
            "version."
        )
    return document


def _figure(sums: Sums) -> Ranking | Overlap:
    return Ranking.of(sums) if isinstance(sums, PairCounts) else Overlap.of(_overlap(sums))


def _overlap(sums: Sums) -> OverlapSums:
    if not isinstance(sums, OverlapSums):
        raise PayloadError("Sums of an unknown kind cannot be shown; ask for pairs or overlap.")
    return sums
