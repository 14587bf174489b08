"""Validation designs: which studies follow from a study, pure and one file.

A design never has code of its own for training or judging: it is a set of ordinary studies over the
same hospitals in other roles.
"""

import hashlib
from collections.abc import Callable, Mapping

from protocol.config import Hospitals, Segmentation, Sorting, Stage, Study
from protocol.documents import digest
from protocol.errors import ConfigError
from protocol.survival_config import COX_WEIGHTS, Prognosis, Regression
from protocol.training_config import Strategy
from protocol.validation_config import Design

__all__ = ["derive", "derived_hashes", "sections_alone"]

MAX_NAME = 64
TAGS = {"leave-one-hospital-out": "loho", "hospital-matrix": "at"}


def derive(study: Study, design: Design) -> dict[str, Study]:
    """Return the studies a design runs, by training hospital, in the study's order.

    ``leave-one-hospital-out``: the others train and that hospital is external. The study's own
    external hospitals are not asked again: they judge the model of all, in the study itself.
    ``hospital-matrix``: that hospital trains alone, and every other, the study's external ones too,
    is external; it judges its own model on its held-out patients.

    A regression is fitted to training patients, also where the study itself fits everybody, so that
    the held-out ones can judge it. Each study has a name of its own, so that hospitals keep their
    intermediate results and their private draws apart.

    Raises
    ------
    ConfigError
        If the design consists of no studies (``bootstrap``), or fewer than two hospitals train.
    """
    if design not in ROLES:
        raise ConfigError(
            f"The design {design} is not made of studies of other hospitals; choose "
            f"{' or '.join(ROLES)}."
        )
    train = study.hospitals.train
    if len(train) < 2:
        raise ConfigError(
            f"The design {design} needs two training hospitals at least, and {study.name} has "
            f"{len(train)}; name more, or judge at an external hospital."
        )
    return {name: _derived(study, design, name) for name in train}


def derived_hashes(study: Study) -> frozenset[str]:
    """Return the hashes of the studies that a study's own designs run: who permits it permits them.

    None where the designs cannot be made of its hospitals.
    """
    studies: list[Study] = []
    for design in study.validate_.designs:
        if design in ROLES and len(study.hospitals.train) > 1:
            studies += derive(study, design).values()
    return frozenset(digest(each.model_dump(mode="json", by_alias=True)) for each in studies)


def _left_out(hospitals: Hospitals, name: str) -> Hospitals:
    return Hospitals(train=tuple(h for h in hospitals.train if h != name), external=(name,))


def _alone(hospitals: Hospitals, name: str) -> Hospitals:
    others = tuple(other for other in hospitals.train if other != name)
    return Hospitals(train=(name,), external=(*others, *hospitals.external))


ROLES: Mapping[str, Callable[[Hospitals, str], Hospitals]] = {
    "leave-one-hospital-out": _left_out,
    "hospital-matrix": _alone,
}


def _derived(study: Study, design: Design, name: str) -> Study:
    hospitals = ROLES[design](study.hospitals, name)
    stages: tuple[Stage, ...] = study.stages
    if "validate" not in stages:
        stages = (*stages, "validate")
    sections = sections_alone(study) if len(hospitals.train) == 1 else {}
    regression = sections.pop("regression", study.regression)
    changes = {
        "name": _short(f"{study.name}-{TAGS[design]}-{name}"),
        "hospitals": hospitals,
        "stages": stages,
        "regression": regression.model_copy(update={"patients": "training"}),
        "validate_": study.validate_.model_copy(update={"designs": (), "subgroups": False}),
    }
    return study.model_copy(update=changes | sections)


def sections_alone(study: Study) -> dict[str, Sorting | Segmentation | Prognosis | Regression]:
    """Return the sections of a study in which one hospital trains, by their names.

    One hospital has nothing to aggregate: a server's momentum would only distort its training. But
    the strategy of ``cox_two_phase`` is the optimiser itself, and stays. Nor can the only hospital
    be left out to choose a penalty: folds of its patients are, of the site-stratified form, which
    with one hospital is the pooled one on exact times.
    """
    prognosis, regression = study.prognosis, study.regression
    if prognosis.head != "cox_two_phase":
        weight = "events" if prognosis.head in COX_WEIGHTS else "patients"
        prognosis = prognosis.model_copy(update={"strategy": Strategy(weight_by=weight)})
    if regression.chooses_penalty and regression.fold_by == "hospitals":
        regression = regression.model_copy(update={"fold_by": "patients", "form": "stratified"})
    return {
        "sort": study.sort.model_copy(update={"strategy": Strategy()}),
        "segment": study.segment.model_copy(update={"strategy": Strategy()}),
        "prognosis": prognosis,
        "regression": regression,
    }


def _short(name: str) -> str:
    """Return a name that is no longer than a study's may be, and still its own."""
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: MAX_NAME - len(digest) - 1]}-{digest}"
