"""The hospital's half of Cox heads: its sums over risk sets, and its share of the exact gradient.

All of it is computed in float64 and without dropout, so that the hospitals' gradients add up to the
gradient of the pooled likelihood to the last digits, and both phases see the same network. What a
reader of the sums learns, and where they are refused, `shared_models.heads.cox_two_phase` says.
Axes: N patients, G points of the risk sets' grid.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.hospital import Hospital
from client.private_terms import refuse_unnoised
from client.prognosis import outcomes, prognosis_inputs, training_patients
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.errors import ConfigError, DataError, PayloadError
from protocol.payload import Answer, Question, TrainReply, TrainRequest
from protocol.risk_grid import STEPS_MONTHS, risk_grid
from protocol.stats.cells import is_small
from shared_models.heads import choose_head
from shared_models.heads.cox_two_phase import RiskSetSums, risk_set_sums, surrogate_nll
from shared_models.heads.relative_hazard import at_grid
from shared_models.networks import build
from shared_models.weights import from_arrays

__all__ = ["answer", "gradient_round"]

ROWS_AT_ONCE = 64


class _Training:
    """The training patients of one hospital, and the network in float64."""

    def __init__(self, hospital: Hospital, study: Study, agreed: dict[str, Any]) -> None:
        self.hospital, self.study, self.agreed = hospital, study, agreed
        self.patients = training_patients(hospital)
        self.months, self.event = outcomes(self.patients, choose_head(study.prognosis.head))
        self.cuts = [float(cut) for cut in agreed["cuts_months"]]

    def network(self, arrays: Arrays) -> nn.Module:
        section = self.study.prognosis
        model = build(section.network.name, section.network_options())
        from_arrays(model, arrays)
        return model.double().eval().to(self.hospital.execution.device)

    def batches(self, model: nn.Module, grid: Sequence[float]) -> Iterator[tuple[slice, Tensor]]:
        """Yield f of some patients after the other: (rows,) or (rows, G)."""
        inputs = prognosis_inputs(self.hospital, self.study, self.agreed, self.patients)
        device = self.hospital.execution.device
        for first in range(0, len(self.patients), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            part = {name: values[rows].to(device).double() for name, values in inputs.items()}
            outputs = model(part["images"], part["slice_present"], part["tabular"], part["missing"])
            yield rows, at_grid(outputs, self.cuts, grid)

    def sums(self, arrays: Arrays, grid: Sequence[float]) -> RiskSetSums:
        with self.hospital.execution.active(), torch.no_grad():
            found = [score.cpu() for _, score in self.batches(self.network(arrays), grid)]
        return risk_set_sums(torch.cat(found), self.months, self.event, tuple(grid))

    def counts(self, grid: Sequence[float]) -> RiskSetSums:
        """Return who is at risk and has the event, without a network."""
        nothing = torch.zeros(len(self.patients), dtype=torch.float64)
        return risk_set_sums(nothing, self.months, self.event, tuple(grid))

    def require_cells(self, sums: RiskSetSums) -> None:
        """Refuse where a few patients could be told apart from the others.

        Raises
        ------
        DataError
        """
        min_cell = self.hospital.config.min_cell
        # Who left before the first point is in no sum, and would be the number of patients less it.
        if is_small(len(self.patients) - int(sums.at_risk[0]), min_cell):
            raise DataError(
                f"Fewer than {min_cell} patients leave before the first point of the Cox grid; use "
                "a coarser grid, or a head that is a sum over patients."
            )
        sums.require_cells(min_cell)

    def possible_steps(self) -> list[int]:
        """Return the steps of a grid on which no cell is small."""
        return [step for step in STEPS_MONTHS if self._is_possible(step)]

    def _is_possible(self, step: int) -> bool:
        try:
            self.require_cells(self.counts(risk_grid(self.cuts[-1], step)))
        except (ConfigError, DataError):
            return False
        return True


def answer(hospital: Hospital, question: Question) -> Answer:
    """Answer on which grids the hospital can sum over risk sets, or its sums at given weights.

    Parameters
    ----------
    question : Question
        ``agreed["risk_sets"]``: ``step_months`` of the grid, and the weights as arrays; without
        arrays the question is which steps are possible.

    Returns
    -------
    Answer
        ``steps`` (those on which nobody is told apart) or ``sums`` (RiskSetSums).

    Raises
    ------
    DataError
        If the sums would tell of fewer patients than the hospital's ``min_cell``.
    PrivacyError
        If the hospital has a privacy policy.
    """
    refuse_unnoised(hospital, question.study, "cox_two_phase", "a question about risk sets")
    here = _Training(hospital, question.study, question.agreed)
    if question.arrays is None:
        return Answer({"steps": here.possible_steps()})
    grid = risk_grid(here.cuts[-1], _step(question.agreed))
    here.require_cells(here.counts(grid))
    return Answer({"sums": here.sums(question.arrays, grid).to_dict()})


def gradient_round(hospital: Hospital, request: TrainRequest) -> TrainReply:
    """Return the hospital's share of the gradient of the pooled negative log likelihood.

    Parameters
    ----------
    request : TrainRequest
        ``agreed["risk_sets"]``: ``step_months`` and ``pooled``, the sums of all hospitals at these
        weights.

    Returns
    -------
    TrainReply
        ``arrays`` are no weights but d/dw of `surrogate_nll`, float64, by the weights' names; their
        sum over hospitals is the pooled gradient. ``loss``: the pooled likelihood's terms of this
        hospital's events, for each of them.

    Raises
    ------
    DataError
        If the grid tells of fewer patients than ``min_cell``.
    PayloadError
        If the pooled sums do not hold this hospital's patients.
    PrivacyError
        If the hospital has a privacy policy.
    """
    refuse_unnoised(hospital, request.study, "cox_two_phase", "the gradient of a pooled likelihood")
    here = _Training(hospital, request.study, request.agreed)
    pooled = RiskSetSums.from_dict(request.agreed["risk_sets"].get("pooled"))
    grid = risk_grid(here.cuts[-1], _step(request.agreed))
    own = here.counts(grid)
    here.require_cells(own)
    held = bool((pooled.at_risk >= own.at_risk).all() and (pooled.events >= own.events).all())
    if pooled.grid_months != grid or not held:
        raise PayloadError(
            f"The pooled risk sets do not hold the patients of {hospital.name}; ask for its sums "
            "again before the gradient."
        )
    model, scores = here.network(request.arrays), []
    with hospital.execution.active():
        for rows, score in here.batches(model, grid):
            surrogate_nll(score, here.months[rows], here.event[rows], pooled).backward()
            scores.append(score.detach().cpu())
    events, told = int(own.events.sum()), int(own.events.sum()) >= hospital.config.min_cell
    log_hazard = risk_set_sums(torch.cat(scores), here.months, here.event, grid).event_log_hazard
    loss = float(own.events @ pooled.log_sums) - log_hazard
    return TrainReply(
        {name: _gradient(parameter) for name, parameter in model.named_parameters()},
        len(here.patients),
        events if told else 0,
        {"loss": loss / events} if told and events else {},
    )


def _gradient(parameter: nn.Parameter) -> np.ndarray:
    grad = parameter.grad
    values = torch.zeros_like(parameter) if grad is None else grad
    return np.array(values.detach().cpu().numpy(), dtype=np.float64, order="C")


def _step(agreed: dict[str, Any]) -> int:
    asked = agreed.get("risk_sets")
    if not isinstance(asked, dict) or type(asked.get("step_months")) is not int:
        raise PayloadError(
            "The question about risk sets names no step of their grid; both ends must run the same "
            "version."
        )
    return int(asked["step_months"])
