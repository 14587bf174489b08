"""The segment stage at the hospital: train on its own masks, judge on those held out.

Axes: B slices, Z slices of a stack, Y rows, X columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from client.cohort import Patient
from client.control import open_control
from client.hospital import Hospital
from client.schedule import round_learning_rate
from client.training import train
from protocol.errors import DataError
from protocol.payload import TrainReply, TrainRequest
from protocol.seeds import generator
from shared_models.augment import augment_segmentation
from shared_models.networks import build
from shared_models.objectives import segmentation_objective
from shared_models.weights import from_arrays, to_arrays

__all__ = ["labelled", "segmentation_records", "train_round"]


def labelled(patients: Sequence[Patient]) -> list[Patient]:
    """Return the patients with expert masks of every class."""
    return [patient for patient in patients if patient.labels is not None and not patient.partial]


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

    Raises
    ------
    DataError
        If no training patient has an expert mask.
    TrainingError
        If the loss is not finite.
    """
    study, section = request.study, request.study.segment
    patients = labelled(hospital.training)
    if not patients:
        raise DataError(
            f"{hospital.name} has no training patient with an expert mask; add masks or take part "
            "from the measure stage on."
        )
    model = build(section.network.name, section.network.options)
    from_arrays(model, request.arrays)
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
        augment=augment_segmentation if section.training.augment else None,
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
