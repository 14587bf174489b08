"""A training round at a hospital with a privacy policy: what is checked, computed and told.

Of such a round nothing leaves but the weights, which follow from noised sums, and numbers that are
public already. No loss and no count of events is told: both are sums over patients without noise.
The number of patients is the one that the noised survey told (`client.private_survey`); it stands
as the reply's weight, and in the divisor of every step.

A round that is asked again with the same model gets the reply it got, from the disk: it costs
nothing, where a second draw would cost a second time.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client.control import open_control
from client.hospital import Hospital
from client.policy import site_ledger
from client.private_survey import survey
from client.private_training import train_privately
from client.schedule import round_learning_rate
from client.training import Augment
from privacy.gradients import PatientLoss
from privacy.noise import NoiseSource
from privacy.policy import PrivacyPolicy
from privacy.refusals import refusal, require_separable, require_separable_targets
from protocol.arrays import fingerprint
from protocol.config import Study
from protocol.payload import Question, TrainReply, TrainRequest
from protocol.training_config import LocalTraining, Strategy
from shared_models.heads import Head
from shared_models.weights import load, save, to_arrays

__all__ = ["PrivateRecords", "private_reply", "require_private_head"]

KEPT_ROUNDS = 2


@dataclass(frozen=True)
class PrivateRecords:
    """What the patients of a hospital give to a round.

    Attributes
    ----------
    tensors : dict of str to Tensor
        One row a patient; or a slice, where ``num_slices`` is given.
    num_slices : ndarray or None
        (N,) slices of each patient, whose rows stand together.
    """

    tensors: Mapping[str, Tensor]
    num_slices: np.ndarray | None = None


def require_private_head(head: Head) -> None:
    """Refuse a survival head whose loss or targets compare patients with each other.

    Raises
    ------
    PrivacyError
    """
    what = f"head '{head.name}'"
    if head.two_phase:
        raise refusal("cox_two_phase", what)
    if head.needs_baseline:
        raise refusal("cox", what)
    if not head.decomposable:
        raise refusal("rank_loss", what)
    require_separable_targets(head.targets, head.num_causes, what)
    cuts = np.array([12.0, 24.0, 36.0])
    months = np.array([3.0, 11.0, 20.0, 25.0, 35.0, 50.0])
    event = np.arange(len(months)) % (head.num_causes + 1)
    targets = {k: torch.from_numpy(v) for k, v in head.targets(months, event, cuts).items()}
    outputs = torch.linspace(-1, 1, len(months) * head.num_outputs(len(cuts)))
    made_up = targets | {"outputs": outputs.reshape(len(months), -1)}
    require_separable(lambda rows: head.nll(rows["outputs"], rows), made_up, what)


def private_reply(
    hospital: Hospital,
    request: TrainRequest,
    terms: PrivacyPolicy,
    model: nn.Module,
    records: Callable[[], PrivateRecords],
    loss_fn: PatientLoss,
    *,
    rounds: int,
    training: LocalTraining,
    strategy: Strategy,
    augment: Augment | None,
) -> TrainReply:
    """Train for one round under the hospital's terms, or repeat the reply of that round.

    Parameters
    ----------
    model : nn.Module
        With the global weights.
    records : callable
        Reads the patients; called only where there is something to compute.
    loss_fn : callable
        As of `client.private_training.train_privately`.
    rounds, training, strategy : int, LocalTraining, Strategy
        Of the study's stage.
    augment : callable or None
        As of `client.private_training.train_privately`.

    Returns
    -------
    TrainReply
        Noised weights in float32, no events, no metrics.

    Raises
    ------
    PrivacyError, BudgetError, TrainingError
    """
    stage = request.stage
    if strategy.weight_by == "events":
        raise refusal("weight_by_events", f"the weights of the stage {stage}")
    if rounds > terms.max_rounds:
        raise refusal(
            "rounds", f"the stage {stage} of {rounds} rounds (at most {terms.max_rounds})"
        )
    size = _public_size(hospital, request.study, terms, stage)
    control = open_control(hospital, request)
    file = _file(hospital, request, terms)
    if file.is_file():
        arrays, told = load(file)
        rate_sum = float(told["rate_sum"])
    else:
        given = records()
        summary = train_privately(
            model,
            given.tensors,
            loss_fn,
            terms,
            learning_rate=round_learning_rate(training, request.round_index, rounds),
            ledger=site_ledger(hospital.directory),
            study=request.study.name,
            purpose=stage,
            source=NoiseSource(hospital.directory / ".concors" / "privacy" / "noise.json"),
            execution=hospital.execution,
            options=training,
            num_slices=given.num_slices,
            public_size=size,
            round_index=request.round_index,
            augment=augment,
            correction=None if control is None else control.correction(),
        )
        arrays, rate_sum = to_arrays(model), summary.rate_sum
        _keep(file, arrays, rate_sum)
    if control is None:
        return TrainReply(arrays, size, 0)
    # c_i is computed from the noised weights, so it is as private as they are.
    control.settle(arrays, rate_sum)
    return TrainReply(arrays, size, 0, rate_sum=rate_sum)


def _public_size(hospital: Hospital, study: Study, terms: PrivacyPolicy, stage: str) -> int:
    """Return how many patients train, as the noised survey told: told once, free when repeated."""
    told = survey(hospital, Question(study, "survey"), terms).document
    return max(int(told["can_train"][stage]), 1)


def _file(hospital: Hospital, request: TrainRequest, terms: PrivacyPolicy) -> Path:
    asked = {
        "study": request.study.model_dump(mode="json"),
        "round": request.round_index,
        "agreed": request.agreed,
        "arrays": fingerprint(request.arrays),
        "control": fingerprint(request.control or {}),
        "control_round": request.control_round,
        "terms": terms.model_dump(),
        "patients": hospital.fingerprint,
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    folder = hospital.workspace(request.study) / "told" / request.stage
    return folder / f"round-{request.round_index:05d}-{digest}.safetensors"


def _keep(file: Path, arrays: dict[str, np.ndarray], rate_sum: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save(file, arrays, {"rate_sum": repr(rate_sum)})
    # The centre may go back by one round more than the last; what is older is not asked again.
    for old in sorted(file.parent.glob("round-*.safetensors"))[:-KEPT_ROUNDS]:
        if old != file:
            old.unlink()
