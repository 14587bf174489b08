"""The patients a hospital judges the survival network on, and what the network says of them.

Axes: N patients, M times.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from client.hospital import Hospital
from client.prediction import network_outputs, predicted_survival
from client.survey import had_event, validation_patients
from protocol.evaluation import EvaluationPlan, Role
from protocol.payload import Question
from protocol.stats.sums import FloatArray

__all__ = ["Judged"]

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Judged:
    """The patients a network is judged on, and what it says of them."""

    hospital: Hospital
    question: Question
    plan: EvaluationPlan
    role: Role
    keys: tuple[str, ...]
    months: FloatArray
    event: FloatArray
    outputs: Tensor

    @classmethod
    def of(cls, hospital: Hospital, question: Question) -> "Judged | None":
        """Return them, or None where fewer than ``min_cell`` can be judged.

        Nobody is judged where some came under observation after time zero: the network takes them
        for at risk before.
        """
        patients = validation_patients(hospital, question.study)
        late = any(patient.start_months > 0 for patient in patients)
        if late or len(patients) < max(hospital.config.min_cell, 1):
            return None
        return cls(
            hospital,
            question,
            EvaluationPlan.from_dict(question.agreed.get("evaluation")),
            "external" if hospital.name in question.study.hospitals.external else "train",
            tuple(patient.key for patient in patients),
            np.array([patient.months for patient in patients]),
            # With competing risks the network's S is that of an event of any kind.
            np.array([float(had_event(patient, question.study)) for patient in patients]),
            network_outputs(hospital, question, patients),
        )

    @property
    def min_cell(self) -> int:
        return self.hospital.config.min_cell

    def survival(self, months: tuple[float, ...]) -> FloatArray:
        """Return S at common times, (N, M)."""
        return predicted_survival(self.question, self.outputs, months)

    def own_survival(self) -> tuple[FloatArray, FloatArray]:
        """Return S at each patient's own time, (N,), and the event; who passes the end stops there.

        In chunks: all patients at all patients' times would be a large table.
        """
        months = np.minimum(self.months, self.plan.end_months)
        own = np.empty(len(months))
        for first in range(0, len(months), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            table = predicted_survival(self.question, self.outputs[rows], months[rows].tolist())
            own[rows] = np.diagonal(table)
        return own, self.event * (self.months <= self.plan.end_months)

    def resamples(self, measure: str) -> dict[str, Any]:
        """Return the keyword arguments of a measure's bootstrap.

        Drawn anew for each measure: rows of one draw in several measures would be several
        equations in the same patients.
        """
        study = self.question.study
        purpose = f"{study.name}/validate/{measure}"
        rng = self.hospital.private_generator(purpose)
        return {"replicates": study.validate_.bootstrap, "rng": rng}
