"""The questions of a Cox regression to a set of hospitals, and what their answers add up to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import PrivacyError
from protocol.secure_groups import tellers
from protocol.stats import LifeTable, merge_all
from protocol.stats.cox import CoxSums
from protocol.stats.cox_grid import CoxGridSums
from protocol.stats.cox_hazard import CoxHazard
from protocol.stats.missingness import Missingness
from server.centre import Centre
from server.findings import Findings
from server.secure_questions import SecureQuestions
from strategies.cox import CoxFit, fit
from strategies.cox_penalty import Penalty

__all__ = ["CoxQuestions", "HospitalsLeft", "fit_once", "missing_patients"]

QUESTION = "query.cox"
MISSING = " missing"
FloatArray = npt.NDArray[np.float64]


class HospitalsLeft(Exception):
    """Fewer hospitals answered than at the question before."""


class CoxQuestions:
    """Newton's questions to a fixed set of hospitals."""

    def __init__(self, centre: Centre, findings: Findings, sites: Sequence[str]) -> None:
        self.centre = centre
        self.agreed = findings.agreed
        self.section = centre.study.regression
        self.indicators = _indicators(centre, findings)
        self.sites = tuple(sites)
        self.beta: list[float] = []
        self.grid: CoxGridSums | None = None
        self.rounds = 0
        self.impute: dict[str, Any] | None = None
        # Of a bootstrap; 0 is the patients as they are.
        self.replicate = 0
        # Of a cross-validation within hospitals; None is everybody.
        self.fold: int | None = None
        section = self.section
        # Until it is chosen, none.
        strength = section.penalty if isinstance(section.penalty, float) else 0.0
        self.penalty = Penalty(strength, section.l1_ratio)
        self.curve = _hazard_curve(centre, findings)
        secure = centre.study.secure_aggregation is not None
        self.secure = SecureQuestions(centre, QUESTION, self.sites) if secure else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The covariates, then the indicators, as the hospitals name them."""
        return (*self.section.names, *(name + MISSING for name in self.indicators))

    @property
    def num_columns(self) -> int:
        return len(self.section.names) + len(self.indicators)

    def question(self, want: str, beta: FloatArray, hazard: CoxHazard | None) -> dict[str, Any]:
        """Return what ``agreed["cox"]`` says."""
        return {
            "want": want,
            "beta": [float(value) for value in beta],
            "grid_months": list(self.section.grid_months) if self.section.form == "grid" else [],
            "indicators": list(self.indicators),
            "hazard": None if hazard is None else hazard.to_dict(),
            "impute": self.impute,
            "replicate": self.replicate,
            "fold": self.fold,
            "curve": self.curve,
        }

    def documents(
        self, want: str, beta: FloatArray, hazard: CoxHazard | None = None
    ) -> list[dict[str, Any]]:
        """Return the hospitals' documents in the study's order.

        Raises
        ------
        HospitalsLeft
            If not all of them answered (the first question may lose hospitals).
        PrivacyError
            If none of them may answer.
        """
        agreed = {**self.agreed, "cox": self.question(want, beta, hazard)}
        if self.secure is not None:
            # Hospitals open one question for one set of them, so a fit that somebody left goes on
            # from what was asked without them, and not from what all answered.
            self.beta = [float(value) for value in beta]
            summed = self.secure.ask(agreed, may_decline=True)
            self._note_present(summed.hospitals)
            section = self.centre.study.secure_aggregation
            k = 1 if section is None else section.min_cell
            return [{name: part.suppressed(k).to_dict() for name, part in summed.total.items()}]
        answers = self.centre.answers(QUESTION, self.sites, agreed, may_decline=True)
        present = tuple(site for site in self.sites if site in answers)
        if not present:
            raise PrivacyError(
                "Every hospital's privacy policy forbids the sums of a Cox regression, so the "
                "study has none; leave the stage regression out."
            )
        self._note_present(present)
        return [answers[site] for site in present]

    def _note_present(self, present: tuple[str, ...]) -> None:
        if present != self.sites:
            self.sites, first = present, self.rounds == 0
            if not first:
                raise HospitalsLeft

    def sums(self, beta: FloatArray) -> CoxSums:
        """Ask for the sums at ``beta`` and return the likelihood they add up to."""
        documents = self.documents("sums", beta)
        self.rounds += 1
        self.beta = [float(value) for value in beta]
        if self.section.form == "grid":
            parts = [CoxGridSums.from_dict(document["sums"]) for document in documents]
            self.grid = merge_all(parts)
            return self.grid.partial_likelihood(self.section.ties)
        return merge_all([CoxSums.from_dict(document["sums"]) for document in documents])


def fit_once(asking: CoxQuestions, start: FloatArray | None) -> CoxFit:
    """Fit the study's regression from ``start`` (0 by default); see `strategies.cox.fit`."""
    section = asking.section
    return fit(
        asking.sums,
        asking.num_columns,
        penalty=asking.penalty,
        start=start,
        tolerance=section.tolerance,
        max_rounds=section.max_rounds,
    )


def _indicators(centre: Centre, findings: Findings) -> tuple[str, ...]:
    """Return the covariates that are missing somewhere and so get an indicator."""
    section = centre.study.regression
    if section.missing != "indicator":
        return ()
    missing = missing_patients(centre, findings)
    # A measurement fails in few patients; those are set to the mean without a flag.
    return tuple(name for name in section.covariates if missing[name] > 0)


def _surveyed(centre: Centre, findings: Findings) -> list[dict[str, Any]]:
    names = tellers(centre.study, centre.study.hospitals.train)
    return [findings.survey[name] for name in names if name in findings.survey]


def missing_patients(centre: Centre, findings: Findings) -> dict[str, int]:
    """Return in how many training patients each covariate is missing.

    Not from the moments: a covariate absent at a hospital is known in nobody there, and moments of
    nobody are withheld together with how many lack it.
    """
    total = merge_all(
        [Missingness.from_dict(answer["missingness"]) for answer in _surveyed(centre, findings)]
    )
    return dict(zip(total.names, total.missing.tolist(), strict=True))


def _hazard_curve(centre: Centre, findings: Findings) -> dict[str, list[float]] | None:
    """Return the consortium's cumulative hazard, which imputed covariates must be related to."""
    if centre.study.regression.missing != "impute":
        return None
    tables = [LifeTable.from_dict(answer["life_table"]) for answer in _surveyed(centre, findings)]
    total = merge_all(tables)
    at_risk = total.at_risk.sum(axis=0)[:-1]
    steps = total.events.sum(axis=0) / np.maximum(at_risk, 1.0)
    return {
        "months": list(total.grid_months),
        "cumulative": [0.0, *np.cumsum(steps).tolist()],
    }
