"""Judging the models by vendor, field strength, sex and age band; only sums leave.

What a reader learns beside the figures of all patients: the same figures of every group that the
hospital may tell. The groups of one attribute partition its patients, so whichever is too small is
withheld with others, until what subtraction leaves is large enough as well
(`privacy.suppression.withheld_groups`). Attributes are not crossed: nobody learns how many women
were scanned at 3 T.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from client.cohort import Patient, labelled
from client.hospital import Hospital
from client.survey import covariate_matrix, had_event, has_outcome
from privacy.suppression import withheld_groups
from protocol.errors import PayloadError
from protocol.payload import Answer, Question
from protocol.stats import PairCounts
from protocol.subgroups import AGE_LIMITS_YEARS, GROUPS, MODELS, UNKNOWN, field_strength_group

__all__ = ["judge", "subgroups"]

Mask = npt.NDArray[np.bool_]
Masks = Mapping[str, Mapping[str, Mask]]


def subgroups(patients: Sequence[Patient]) -> dict[str, dict[str, Mask]]:
    """Return who belongs to which group: bool (N,) by attribute and group of `GROUPS`.

    Every patient is in one group of each attribute; who lacks the attribute is ``unknown``, as is
    the scanner of a patient without images.
    """
    age, sex = covariate_matrix(patients, ("age", "sex")).T
    band = np.searchsorted(AGE_LIMITS_YEARS, age, side="right")
    of = {
        "vendor": [p.vendor if p.has_images else UNKNOWN for p in patients],
        "field_strength_t": [field_strength_group(p.field_strength_t) for p in patients],
        "sex": [{0.0: "female", 1.0: "male"}.get(value, UNKNOWN) for value in sex.tolist()],
        "age": [
            GROUPS["age"][place] if np.isfinite(years) else UNKNOWN
            for place, years in zip(band.tolist(), age.tolist(), strict=True)
        ],
    }
    return {
        attribute: {group: np.array([name == group for name in of[attribute]], bool) for group in g}
        for attribute, g in GROUPS.items()
    }


def judge(hospital: Hospital, question: Question) -> Answer:
    """Answer the figures of one model in every group that may be told.

    A hospital named external judges all its patients, any other those it held out.

    Parameters
    ----------
    question : Question
        ``agreed["judged"]`` is one of `MODELS`; its arrays are that model's.

    Returns
    -------
    Answer
        ``subgroups``: by attribute and group PairCounts, of ``segment`` OverlapSums. Groups of
        nobody and groups that are withheld are not named.

    Raises
    ------
    PayloadError
        If the model is none of `MODELS`.
    """
    judged = question.agreed.get("judged")
    if judged not in MODELS:
        raise PayloadError(
            "The question about subgroups does not say which model; both ends must run the same "
            "version."
        )
    external = hospital.name in question.study.hospitals.external
    patients = list(hospital.patients if external else hospital.held_out)
    answer = {"segment": _overlap, "regression": _regression, "prognosis": _prognosis}[judged]
    return Answer({"subgroups": answer(hospital, question, patients)})


def _told(
    masks: Masks, tally: Callable[[Mask], Sequence[int]], min_cell: int
) -> dict[str, list[str]]:
    """Return the groups of each attribute that may be told."""
    told = {}
    for attribute, groups in masks.items():
        counts = {group: tally(mask) for group, mask in groups.items()}
        hidden = withheld_groups(counts, min_cell)
        told[attribute] = [g for g, row in counts.items() if row[0] and g not in hidden]
    return told


def _ranked(
    hospital: Hospital,
    question: Question,
    rows: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    masks: Masks,
) -> dict[str, Any]:
    """Return pair counts by group of patients with months, event and predicted risk (N,) each."""
    months, event, risk = (np.asarray(row, np.float64) for row in rows)
    study = question.study
    tau_months = float(question.agreed.get("horizon_months", study.regression.horizon_months))
    happened = (event == 1) & (months < tau_months)

    def tally(mask: Mask) -> tuple[int, int]:
        return int(mask.sum()), int((mask & happened).sum())

    def pairs(attribute: str, group: str) -> dict[str, Any]:
        mask = masks[attribute][group]
        purpose = f"{study.name}/subgroups/{question.agreed['judged']}/{attribute}/{group}"
        counted = PairCounts.of(
            months[mask],
            event[mask],
            risk[mask],
            tau_months=tau_months,
            replicates=study.validate_.bootstrap,
            rng=hospital.private_generator(purpose),
        )
        return counted.to_dict()

    told = _told(masks, tally, hospital.config.min_cell)
    return {name: {g: pairs(name, g) for g in groups} for name, groups in told.items()}


def _prognosis(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> dict[str, dict[str, Any]]:
    from client.prediction import network_outputs, predicted_risk

    patients = has_outcome(patients)
    if not patients:
        return {}
    risk = predicted_risk(question, network_outputs(hospital, question, patients))
    event = [had_event(p, question.study) for p in patients]
    rows = ([p.months for p in patients], event, risk)
    return _ranked(hospital, question, rows, subgroups(patients))


def _regression(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> dict[str, dict[str, Any]]:
    from client.regression import judged_patients, survival_table

    known = judged_patients(hospital, question, patients)
    if not known or any(patient.start_months > 0 for patient in known):
        return {}
    table = survival_table(hospital, question, known)
    risk = table.x @ np.asarray(question.agreed["cox"]["beta"], np.float64)
    return _ranked(hospital, question, (table.months, table.event, risk), subgroups(known))


def _overlap(
    hospital: Hospital, question: Question, patients: list[Patient]
) -> dict[str, dict[str, Any]]:
    from client.measure import segment_patients
    from client.segment_validation import overlap_sums, overlap_table

    patients, min_cell = labelled(patients), hospital.config.min_cell
    if not patients:
        return {}
    predicted = segment_patients(hospital, question.study, question.arrays or {}, patients)
    # Once, and not for every group that a patient belongs to.
    table, masks = overlap_table(patients, predicted), subgroups(patients)

    def sums(mask: Mask) -> dict[str, Any]:
        return overlap_sums(table[mask]).suppressed(min_cell).to_dict()

    told = _told(masks, lambda mask: (int(mask.sum()),), min_cell)
    return {name: {g: sums(masks[name][g]) for g in groups} for name, groups in told.items()}
