"""The survey of a hospital with a privacy policy: `client.survey`'s document from noised sums.

One vector, one spend. What one patient adds to it at the most, in squared units of one patient:
1 for the side of the split, 1 for the status, 4 for one cell of the follow-up table (its many cells
are given twice the weight), 5/4 for every covariate, and in a hospital of images 1 each for vendor,
field strength, having masks, and having sorted series.

Everything in the document is computed from these sums, so that its parts fit together; suppression
comes after the noise. Categories and grids are fixed beforehand: a list of those that occur would
tell what occurs. Not told are counts of refused series (one patient may have any number of them),
whether a covariate is constant, and zeros (except of a covariate between 0 and 1, where they follow
from the mean).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.cohort import Patient, labelled
from client.dictionary import COVARIATES
from client.hospital import Hospital
from client.kept_answers import Told, tell_once
from client.private_moments import told_moments
from client.subgroups import subgroups
from client.survey import (
    MONTHS_PER_YEAR,
    covariate_matrix,
    had_event,
    has_outcome,
)
from privacy.consistency import nearest_table, whole_counts
from privacy.noised_sums import Block, clamped, one_cell
from privacy.policy import PrivacyPolicy
from privacy.suppression import suppress_count, suppress_counts
from protocol.config import Study
from protocol.payload import Answer, Question
from protocol.public_ranges import FLAG, public_ranges
from protocol.stats import LifeTable, Moments
from protocol.stats.missingness import Missingness
from protocol.stats.sums import FloatArray
from protocol.subgroups import GROUPS
from protocol.survey_grid import STEP_MONTHS, survey_grid

__all__ = ["survey", "survey_blocks", "survey_document"]

TABLE_WEIGHT = 2
TRAINING, ASIDE = 0, 1


def survey_blocks(hospital: Hospital, study: Study) -> dict[str, Block]:
    """Return what each patient adds to the survey; rows are training patients, then the others."""
    everyone, training = hospital.patients, len(hospital.training)
    side = np.where(np.arange(len(everyone)) < training, TRAINING, ASIDE)
    values = covariate_matrix(everyone, study.covariates)
    # Of the others nothing is asked: neither a value nor that there is none.
    covariates = clamped(values, public_ranges(study.covariates, study))
    covariates.rows[training:] = 0
    status = [min(p.event, 2) if _followed(p) else -1 for p in everyone]
    cells = _follow_up_cells(everyone, side, study)
    blocks = {
        "side": one_cell(side, 2),
        "status": one_cell(status, _num_status(hospital)),
        "follow_up": one_cell(cells, 2 * _width(study), TABLE_WEIGHT),
        "covariates": covariates,
    }
    return blocks | (_image_blocks(hospital, study) if _has_images(hospital) else {})


def _has_images(hospital: Hospital) -> bool:
    """Whether the hospital is one of images: its settings say so, whoever the patients are."""
    return hospital.config.images is not None or bool(hospital.config.members)


def _num_status(hospital: Hospital) -> int:
    """Return how many kinds of end of follow-up there can be: censored, event, competing event."""
    outcomes = hospital.config.outcomes
    return 2 if outcomes is not None and outcomes.causes == 1 else 3


def _followed(patient: Patient) -> bool:
    return bool(has_outcome([patient]))


def _width(study: Study) -> int:
    """Return how many cells the follow-up table of one side has: events, then censored."""
    return 2 * len(survey_grid(study)) - 1


def _follow_up_cells(patients: Sequence[Patient], side: np.ndarray, study: Study) -> np.ndarray:
    grid = np.array(survey_grid(study))
    cells = np.full(len(patients), -1)
    for row, patient in enumerate(patients):
        if not _followed(patient):
            continue
        interval = max(int(np.searchsorted(grid, patient.months, side="left")) - 1, 0)
        counted = had_event(patient, study) and patient.months <= grid[-1]
        cell = interval if counted else len(grid) - 1 + interval
        cells[row] = side[row] * _width(study) + cell
    return cells


def _image_blocks(hospital: Hospital, study: Study) -> dict[str, Block]:
    everyone, training = hospital.patients, len(hospital.training)
    groups = subgroups(everyone)
    imaged = np.array([patient.has_images for patient in everyone], bool)
    blocks = {}
    for attribute in ("vendor", "field_strength_t"):
        of = np.full(len(everyone), -1)
        for place, mask in enumerate(groups[attribute].values()):
            of[mask & imaged] = place
        blocks[attribute] = one_cell(of, len(groups[attribute]))
    masks = [row < training and bool(labelled([p])) for row, p in enumerate(everyone)]
    blocks["masks"] = one_cell(np.where(masks, 0, -1), 1)
    if "sort" in study.stages:
        # Imported here: it reads every series, and no other stage needs it.
        from client.sort import labelled_series

        records = labelled_series(hospital, study, judged=False)
        keys = set() if records is None else set(records.patients.tolist())
        sorts = [row < training and p.key in keys for row, p in enumerate(everyone)]
        blocks["sorted"] = one_cell(np.where(sorts, 0, -1), 1)
    return blocks


def survey(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    """Answer what the hospital has, as `client.survey.survey` does, from noised sums.

    Person-years and median follow-up are of the noised follow-up table and know no time beyond its
    end; person-years are not told where patients may have come under observation late.

    Raises
    ------
    BudgetError, PrivacyError
        If the answer costs too much, or a covariate has no public range.
    """
    study = question.study
    asked = {
        "covariates": list(study.covariates),
        "ranges": public_ranges(study.covariates, study),
        "grid": list(survey_grid(study)),
        "causes": study.prognosis.num_causes,
        "status": _num_status(hospital),
        "holdout": study.holdout.model_dump(),
        "seed": study.seed,
        "sort": "sort" in study.stages,
        "preprocessing": study.preprocessing.model_dump(),
    }
    told = tell_once(
        hospital, study, terms, "survey", asked, lambda: survey_blocks(hospital, study)
    )
    return Answer(survey_document(told, hospital, study))


def survey_document(told: Told, hospital: Hospital, study: Study) -> dict[str, Any]:
    """Return the survey's document as it follows from the noised sums of `survey_blocks`.

    It has the keys of `client.survey.survey` and ``noise_sd``, the standard deviation of the noise
    on its counts, in patients.
    """
    return _Document(told, hospital, study).whole()


def _count(value: float) -> int:
    return max(int(np.rint(value)), 0)


class _Document:
    """The parts of the document, which share the counts they must fit."""

    def __init__(self, told: Told, hospital: Hospital, study: Study) -> None:
        self.told, self.study, self.hospital = told, study, hospital
        self.min_cell, sums = hospital.config.min_cell, told.sums
        self.training, aside = (_count(value) for value in sums["side"])
        self.patients = self.training + aside
        followed = min(_count(sums["status"].sum()), self.patients)
        self.status = whole_counts(nearest_table(sums["status"], followed))
        # Who has no outcome is on either side alike.
        share = followed / max(self.patients, 1)
        tables = sums["follow_up"].reshape(2, -1) / TABLE_WEIGHT
        self.tables = [
            whole_counts(nearest_table(table, np.rint(share * size)))
            for table, size in zip(tables, (self.training, aside), strict=True)
        ]

    def whole(self) -> dict[str, Any]:
        names, min_cell = self.study.covariates, self.min_cell
        moments, missingness = self._covariates()
        grid = survey_grid(self.study)
        return {
            "min_cell": min_cell,
            "patients": suppress_count(self.patients, min_cell) or None,
            "events": suppress_count(int(self.status[1]), min_cell),
            "competing_events": suppress_count(int(self.status[2:].sum()), min_cell),
            **self._follow_up(),
            "vendors": self._categories("vendor"),
            "units": {name: COVARIATES[name].unit for name in names if name in COVARIATES},
            "field_strengths_t": self._categories("field_strength_t"),
            "refused": {},
            "covariates": moments.suppressed(min_cell).to_dict(),
            "missingness": missingness.suppressed(min_cell).to_dict(),
            "life_table": _life_table(self.tables[TRAINING], grid).suppressed(min_cell).to_dict(),
            "can_train": self._can_train(),
            "noise_sd": self.told.noise_sd,
        }

    def _covariates(self) -> tuple[Moments, Missingness]:
        names = self.study.covariates
        ranges = public_ranges(names, self.study)
        moments = told_moments(names, ranges, self.told, "covariates", self.training)
        flags = np.array([limits == FLAG for limits in ranges], bool)
        ones = np.rint(moments.n * np.where(flags, moments.mean, 1.0)).astype(np.int64)
        nothing = np.zeros(len(names), np.int64)
        binary = (flags & (moments.n > 0)).astype(np.int64)
        zeros = moments.n - ones
        counts = (self.training, moments.missing, zeros, nothing, binary)
        return moments, Missingness(tuple(names), *counts)

    def _follow_up(self) -> dict[str, float | None]:
        months = np.array(survey_grid(self.study))
        middles = np.append((months[1:] + months[:-1]) / 2, months[-1])
        events, censored = _split(self.tables[TRAINING] + self.tables[ASIDE])
        left = censored + np.append(events, 0.0)
        if left.sum() < max(self.min_cell, 1):
            return {"person_years": None, "median_followup_months": None}
        # Ends of the intervals, and how many left by then; nobody is known beyond the last.
        ends, gone = np.append(months, months[-1]), np.concatenate([[0.0], np.cumsum(left)])
        median = np.round(np.interp(gone[-1] / 2, gone, ends) / STEP_MONTHS) * STEP_MONTHS
        outcomes = self.hospital.config.outcomes
        late = outcomes is None or outcomes.start is not None
        years = None if late else float(left @ middles / MONTHS_PER_YEAR)
        return {"person_years": years, "median_followup_months": float(median)}

    def _categories(self, attribute: str) -> dict[str, int | None]:
        if attribute not in self.told.sums:
            return {}
        counts = np.maximum(np.rint(self.told.sums[attribute]), 0).astype(int).tolist()
        names = [{"3.0": "3"}.get(group, group) for group in GROUPS[attribute]]
        named = {name: n for name, n in zip(names, counts, strict=True) if n}
        return suppress_counts(dict(sorted(named.items())), self.min_cell)

    def _can_train(self) -> dict[str, int]:
        # At least 1: a hospital whose noise says 0 would be kept from training by it.
        with_outcome = int(self.tables[TRAINING].sum()) if self._outcomes() else 0
        numbers = {"segment": 0, "prognosis": max(with_outcome, int(self._outcomes()))}
        for stage, block in (("segment", "masks"), ("sort", "sorted")):
            if block in self.told.sums:
                numbers[stage] = max(_count(self.told.sums[block][0]), 1)
        return numbers

    def _outcomes(self) -> bool:
        return self.hospital.config.outcomes is not None or bool(self.hospital.config.members)


def _split(table: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return events (K,) and censored (K + 1,) of one side's cells."""
    intervals = len(table) // 2
    counts = np.asarray(table, np.float64)
    return counts[:intervals], counts[intervals:]


def _life_table(table: np.ndarray, grid: tuple[float, ...]) -> LifeTable:
    events, censored = _split(table)
    nobody = np.zeros(1, np.int64)
    return LifeTable(grid, ("all",), events[None], censored[None], nobody, 0.0)
