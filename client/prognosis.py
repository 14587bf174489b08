"""The prognosis stage at the hospital: train the survival network on what was measured.

In a study without the measure stage there are no images and no measurements: the network sees the
covariates only, and every patient is one without a slice.

Axes: N patients, Z slices, P columns of measurements and covariates, K intervals of the time grid.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.cohort import Patient
from client.control import open_control
from client.hospital import Hospital
from client.measure import load_measured
from client.private_terms import privacy_terms
from client.schedule import round_learning_rate
from client.site import load_site
from client.survey import covariate_matrix, has_outcome
from client.training import Augment, train
from privacy.policy import PrivacyPolicy
from protocol.config import Study
from protocol.errors import DataError
from protocol.payload import TrainReply, TrainRequest
from protocol.seeds import generator
from shared_models.augment import augment_prognosis
from shared_models.heads import Head, choose_head
from shared_models.networks import build
from shared_models.objectives import prognosis_objective, risk_set_objective
from shared_models.weights import from_arrays, to_arrays

__all__ = [
    "outcomes",
    "prognosis_inputs",
    "require_causes",
    "tabular_values",
    "train_round",
    "training_patients",
]

CHANNELS = 3


def tabular_values(
    hospital: Hospital,
    study: Study,
    agreed: dict[str, Any],
    patients: Sequence[Patient],
    measurements: Sequence[str],
    covariates: Sequence[str],
) -> np.ndarray:
    """Return measurements, then covariates, float64 (N, P), NaN where missing.

    Raises
    ------
    DataError
        If the hospital has not measured these patients with the study's network.
    """
    table = covariate_matrix(patients, covariates)
    if not measurements:
        return table
    measured = load_measured(hospital, study, agreed["segmentation"])
    at = [study.prognosis.measurements.index(name) for name in measurements]
    rows = [measured.row[patient.key] for patient in patients]
    return np.concatenate([measured.values[rows][:, at], table], axis=1)


def outcomes(patients: Sequence[Patient], head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Return months and events, (N,) each, as a head counts them.

    With competing risks an event is its cause; for every other head it is the first kind alone,
    and who had another is censored then.
    """
    months = np.array([patient.months for patient in patients], np.float64)
    cause = np.array([patient.event for patient in patients], np.int64)
    return months, cause if head.num_causes > 1 else (cause == 1).astype(np.int64)


def require_causes(hospital: Hospital, num_causes: int) -> None:
    """Refuse a hospital whose outcome table tells fewer kinds of event apart than the study.

    Raises
    ------
    DataError
    """
    places = [hospital.directory / member for member in hospital.config.members]
    for config in (load_site(place) for place in places) if places else (hospital.config,):
        told = config.outcomes.causes if config.outcomes else 1
        if told < num_causes:
            raise DataError(
                f"{config.name} tells {told} kind of event apart where the study has {num_causes}; "
                "set outcomes.causes in its site.yaml if its event column has competing events."
            )


def prognosis_inputs(
    hospital: Hospital, study: Study, agreed: dict[str, Any], patients: Sequence[Patient]
) -> dict[str, Tensor]:
    """Return the survival network's inputs for patients of this hospital.

    Returns
    -------
    dict
        ``images`` float32 (N, 3, Z, Y, X); ``slice_present`` (N, Z); ``tabular`` (N, P),
        standardised by the agreed scales, 0 where missing; ``missing`` (N, P), 1 where missing.
        Columns are the study's measurements, then its covariates. Without the measure stage Z is 0.

    Raises
    ------
    DataError
        If the hospital has not measured these patients with the study's network.
    """
    section = study.prognosis
    images = np.zeros((len(patients), CHANNELS, 0, 1, 1), np.float32)
    slice_present = np.zeros((len(patients), 0), np.float32)
    if "measure" in study.stages:
        measured = load_measured(hospital, study, agreed["segmentation"])
        rows = [measured.row[patient.key] for patient in patients]
        images, slice_present = measured.images[rows], measured.slice_present[rows]
    values = tabular_values(
        hospital, study, agreed, patients, section.measurements, section.covariates
    )
    names = (*section.measurements, *section.covariates)
    mean, sd = np.array([agreed["scales"][name] for name in names]).reshape(-1, 2).T
    standard = (values - mean) / sd
    missing = ~np.isfinite(standard)
    return {
        "images": torch.from_numpy(images),
        "slice_present": torch.from_numpy(slice_present),
        "tabular": torch.from_numpy(np.where(missing, 0.0, standard).astype(np.float32)),
        "missing": torch.from_numpy(missing.astype(np.float32)),
    }


def training_patients(hospital: Hospital) -> list[Patient]:
    """Return whom the survival network is trained on.

    Raises
    ------
    DataError
        If fewer training patients than the hospital's ``min_cell`` have an outcome, or observation
        of some began after time zero.
    """
    # Who was observed for no time at all has nothing to say about the hazard.
    patients = [patient for patient in has_outcome(hospital.training) if patient.months > 0]
    if len(patients) < hospital.config.min_cell:
        raise DataError(
            f"{hospital.name} has fewer than {hospital.config.min_cell} training patients with a "
            "known outcome; add follow-up or take part as an external hospital."
        )
    if any(patient.start_months > 0 for patient in patients):
        raise DataError(
            f"{hospital.name} has patients who came under observation after time zero, and the "
            "network would count them as at risk before; use the regression stage instead."
        )
    return patients


def train_round(hospital: Hospital, request: TrainRequest) -> TrainReply:
    """Train the survival network for one round on the hospital's own follow-up.

    A Cox head sees all patients of the hospital in one batch (`Prognosis.max_risk_set` at most),
    and its loss is divided by a number common to all hospitals. A hospital with fewer events than
    its ``min_cell``, or none, sends the weights back as they came, with no event: they weigh
    nothing.

    With a privacy policy, `client.private_round`: a patient is their images, table and follow-up.

    Raises
    ------
    DataError
        As `training_patients` and `require_causes`.
    PrivacyError, BudgetError
        If the hospital's privacy policy forbids the study, its head, or the round.
    TrainingError
        If the loss is not finite.
    """
    study, section = request.study, request.study.prognosis
    require_causes(hospital, section.num_causes)
    head = choose_head(section.head)
    augmented = section.training.augment and "measure" in study.stages
    augment = augment_prognosis if augmented else None
    terms = privacy_terms(hospital, study)
    if terms is not None:
        return _private_round(hospital, request, terms, head, augment)
    patients = training_patients(hospital)
    months, event = outcomes(patients, head)
    cuts = np.array(request.agreed["cuts_months"])
    targets = head.targets(months, event, cuts)
    events = int((event > 0).sum())
    # A small count stays here, as in the survey; weighed by events, such a hospital weighs 0.
    told = events if events >= hospital.config.min_cell else 0
    if head.needs_baseline and not (told and (targets["event"] > 0).any()):
        return TrainReply(dict(request.arrays), len(patients), 0)
    records = prognosis_inputs(hospital, study, request.agreed, patients)
    records |= {name: torch.from_numpy(values) for name, values in targets.items()}
    model = _network(request)
    control = open_control(hospital, request)
    objective, options = partial(prognosis_objective, head=head), section.training
    if head.needs_baseline:
        objective = partial(
            risk_set_objective, head=head, normaliser=request.agreed["events_per_hospital"]
        )
        options = options.model_copy(update={"batch_size": section.max_risk_set})
    summary = train(
        model,
        records,
        objective,
        options,
        learning_rate=round_learning_rate(options, request.round_index, section.rounds),
        rng=generator(
            study.seed, "prognosis/train", round_index=request.round_index, site=hospital.name
        ),
        execution=hospital.execution,
        augment=augment,
        correction=None if control is None else control.correction(),
        whole_batches=not head.decomposable,
    )
    arrays = to_arrays(model)
    rate_sum = None
    if control is not None:
        control.settle(arrays, summary.rate_sum)
        rate_sum = summary.rate_sum
    return TrainReply(arrays, len(patients), told, {"loss": summary.mean_loss}, rate_sum)


def _network(request: TrainRequest) -> nn.Module:
    section = request.study.prognosis
    model = build(section.network.name, section.network_options())
    from_arrays(model, request.arrays)
    return model


def _private_round(
    hospital: Hospital,
    request: TrainRequest,
    terms: PrivacyPolicy,
    head: Head,
    augment: Augment | None,
) -> TrainReply:
    # Imported here: the noised survey it rests on imports what this module imports.
    from client.private_round import PrivateRecords, private_reply, require_private_head

    require_private_head(head)

    def records() -> PrivateRecords:
        # Left out, where training without privacy refuses the whole hospital: a refusal because
        # of one patient would tell of them.
        known = has_outcome(hospital.training)
        patients = [p for p in known if p.months > 0 and p.start_months <= 0]
        if not patients:
            raise DataError(
                f"{hospital.name} has no training patient with a known outcome; add follow-up or "
                "take part as an external hospital."
            )
        months, event = outcomes(patients, head)
        targets = head.targets(months, event, np.array(request.agreed["cuts_months"]))
        inputs = prognosis_inputs(hospital, request.study, request.agreed, patients)
        return PrivateRecords(inputs | {name: torch.from_numpy(v) for name, v in targets.items()})

    section = request.study.prognosis
    return private_reply(
        hospital,
        request,
        terms,
        _network(request),
        records,
        partial(prognosis_objective, head=head),
        rounds=section.rounds,
        training=section.training,
        strategy=section.strategy,
        augment=augment,
    )
