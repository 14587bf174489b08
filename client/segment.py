"""The segment stage at the hospital: train on its own masks, judge on those held out.

Axes: B slices, Z slices of a stack, Y rows, X columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from client.cohort import Patient, labelled
from client.control import open_control
from client.hospital import Hospital
from client.private_terms import privacy_terms
from client.schedule import round_learning_rate
from client.training import Augment, train
from privacy.policy import PrivacyPolicy
from protocol.errors import DataError
from protocol.payload import TrainReply, TrainRequest
from protocol.seeds import generator
from shared_models.augment import augment_segmentation
from shared_models.networks import build
from shared_models.objectives import segmentation_objective
from shared_models.weights import from_arrays, to_arrays

__all__ = ["segmentation_records", "train_round"]


def segmentation_records(patients: Sequence[Patient]) -> dict[str, Tensor]:
    """Return every labelled slice of the patients as one batch of records.

    Returns
    -------
    dict
        ``images`` float32 (B, 1, Y, X) in [0, 1] and ``labels`` int64 (B, Y, X), ED slices then ES
        slices of each patient, base to apex.
    """
    images = np.concatenate([p.cine.reshape(-1, 1, *p.cine.shape[2:]) for p in patients])
    labels = np.concatenate(
        [p.labels.reshape(-1, *p.labels.shape[2:]) for p in patients if p.labels is not None]
    )
    return {
        "images": torch.from_numpy(images.astype(np.float32, copy=False)),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }


def train_round(hospital: Hospital, request: TrainRequest) -> TrainReply:
    """Train the segmentation network for one round on the hospital's own masks.

    With a privacy policy, `client.private_round`: a patient is all their slices.

    Raises
    ------
    DataError
        If no training patient has an expert mask.
    PrivacyError, BudgetError
        If the hospital's privacy policy forbids the study, or the round.
    TrainingError
        If the loss is not finite.
    """
    study, section = request.study, request.study.segment
    terms = privacy_terms(hospital, study)
    patients = labelled(hospital.training)
    if not patients:
        raise DataError(
            f"{hospital.name} has no training patient with an expert mask; add masks or take part "
            "from the measure stage on."
        )
    model = build(section.network.name, section.network.options)
    from_arrays(model, request.arrays)
    augment = augment_segmentation if section.training.augment else None
    if terms is not None:
        return _private_round(hospital, request, terms, model, patients, augment)
    control = open_control(hospital, request)
    summary = train(
        model,
        segmentation_records(patients),
        segmentation_objective,
        section.training,
        learning_rate=round_learning_rate(section.training, request.round_index, section.rounds),
        rng=generator(
            study.seed, "segment/train", round_index=request.round_index, site=hospital.name
        ),
        execution=hospital.execution,
        augment=augment,
        correction=None if control is None else control.correction(),
    )
    arrays = to_arrays(model)
    if control is not None:
        control.settle(arrays, summary.rate_sum)
    return TrainReply(
        arrays=arrays,
        num_patients=len(patients),
        num_events=0,
        metrics={"loss": summary.mean_loss},
        rate_sum=None if control is None else summary.rate_sum,
    )


def _private_round(
    hospital: Hospital,
    request: TrainRequest,
    terms: PrivacyPolicy,
    model: nn.Module,
    patients: Sequence[Patient],
    augment: Augment | None,
) -> TrainReply:
    # Here, as only a hospital with a privacy policy needs what it loads.
    from client.private_round import PrivateRecords, private_reply
    from client.private_training import mean_over_slices

    def records() -> PrivateRecords:
        num_slices = np.array(
            [patient.cine.shape[0] * patient.cine.shape[1] for patient in patients]
        )
        return PrivateRecords(segmentation_records(patients), num_slices)

    section = request.study.segment
    return private_reply(
        hospital,
        request,
        terms,
        model,
        records,
        mean_over_slices(segmentation_objective),
        rounds=section.rounds,
        training=section.training,
        strategy=section.strategy,
        augment=augment,
    )
