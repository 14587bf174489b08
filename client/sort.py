"""The sort stage at the hospital: train the sorting network on what the rules are sure of.

The labels are the rules' confident answers and what people decided; a series on which the rules are
unsure trains nothing.
"""

import numpy as np
import torch
from torch import Tensor, nn

from client.hospital import Hospital
from client.intake.parts import UNSURE_BELOW
from client.private_terms import privacy_terms
from client.schedule import round_learning_rate
from client.series_records import SeriesRecords, series_records
from client.sorter import predict
from client.training import train
from privacy.policy import PrivacyPolicy
from protocol.config import Study
from protocol.errors import DataError
from protocol.payload import Answer, Question, TrainReply, TrainRequest
from protocol.seeds import generator
from protocol.series import SEQUENCES, VIEWS
from protocol.stats.confusion import ConfusionSums
from shared_models.networks import build
from shared_models.sorting import sorting_objective
from shared_models.weights import from_arrays, to_arrays

__all__ = ["labelled_series", "num_sorting_patients", "train_round", "validate"]


def labelled_series(hospital: Hospital, study: Study, *, judged: bool) -> SeriesRecords | None:
    """Return the series that train, or those that judge, of which the rules or a person are sure.

    A hospital named external judges on all, any other on those of the patients it held out.
    """
    records = series_records(hospital.directory)
    if records is None:
        return None
    aside = np.isin(records.patients, [patient.key for patient in hospital.held_out])
    if hospital.name in study.hospitals.external:
        aside = np.ones(len(records), dtype=bool)
    sure = records.confidence >= UNSURE_BELOW
    return records.where(sure & (aside if judged else ~aside))


def num_sorting_patients(hospital: Hospital, study: Study) -> int:
    """Return how many patients have series that train the sorting network."""
    records = labelled_series(hospital, study, judged=False)
    return 0 if records is None else len(set(records.patients.tolist()))


def _batch(records: SeriesRecords) -> dict[str, Tensor]:
    names = ("images", "features", "sequence", "view")
    return {name: torch.from_numpy(getattr(records, name)) for name in names}


def train_round(hospital: Hospital, request: TrainRequest) -> TrainReply:
    """Train the sorting network for one round on the hospital's own series.

    With a privacy policy, `client.private_round`: a patient is all their series.

    Raises
    ------
    DataError
        If the hospital has no series that is surely sorted.
    PrivacyError, BudgetError
        If the hospital's privacy policy forbids the study, or the round.
    TrainingError
        If the loss is not finite.
    """
    study, section = request.study, request.study.sort
    records = labelled_series(hospital, study, judged=False)
    if records is None or not len(records):
        raise DataError(
            f"{hospital.name} has no series that is surely sorted; add DICOM images or leave the "
            "stage sort out."
        )
    model = build(section.network.name, section.network.options)
    from_arrays(model, request.arrays)
    terms = privacy_terms(hospital, study)
    if terms is not None:
        return _private_round(hospital, request, terms, model, records)
    summary = train(
        model,
        _batch(records),
        sorting_objective,
        section.training,
        learning_rate=round_learning_rate(section.training, request.round_index, section.rounds),
        rng=generator(
            study.seed, "sort/train", round_index=request.round_index, site=hospital.name
        ),
        execution=hospital.execution,
    )
    return TrainReply(
        arrays=to_arrays(model),
        num_patients=len(set(records.patients.tolist())),
        num_events=0,
        metrics={"loss": summary.mean_loss},
    )


def _private_round(
    hospital: Hospital,
    request: TrainRequest,
    terms: PrivacyPolicy,
    model: nn.Module,
    records: SeriesRecords,
) -> TrainReply:
    # Imported here: the noised survey it rests on counts who has `labelled_series`.
    from client.private_round import PrivateRecords, private_reply
    from client.private_training import mean_over_slices

    def of_patients() -> PrivateRecords:
        order = np.argsort(records.patients, kind="stable")
        _, num_series = np.unique(records.patients, return_counts=True)
        tensors = {
            name: values[torch.from_numpy(order)] for name, values in _batch(records).items()
        }
        return PrivateRecords(tensors, num_series)

    section = request.study.sort
    return private_reply(
        hospital,
        request,
        terms,
        model,
        of_patients,
        mean_over_slices(sorting_objective),
        rounds=section.rounds,
        training=section.training,
        strategy=section.strategy,
        augment=None,
    )


def validate(hospital: Hospital, question: Question) -> Answer:
    """Answer how often the network says what the rules, where sure, or a person say.

    Returns
    -------
    Answer
        ``sorting``: ConfusionSums of series by ``sequence`` and ``view``, rounded to multiples of
        ``min_cell``; empty where fewer than ``min_cell`` patients could be judged.
    """
    study, min_cell = question.study, hospital.config.min_cell
    records = labelled_series(hospital, study, judged=True)
    if records is None or len(set(records.patients.tolist())) < min_cell:
        return Answer({})
    network = study.sort.network
    model = build(network.name, network.options)
    from_arrays(model, question.arrays or {})
    with hospital.execution.active():
        sequence, view = predict(model, records.images, records.features)
    found = {
        "sequence": ConfusionSums.of(SEQUENCES, records.sequence, sequence.argmax(1)),
        "view": ConfusionSums.of(VIEWS, records.view, view.argmax(1)),
    }
    sums = {name: confusion.suppressed(min_cell).to_dict() for name, confusion in found.items()}
    return Answer({"sorting": sums})
