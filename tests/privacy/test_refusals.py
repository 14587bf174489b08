"""What cannot be private, each with its sentence."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.private_round import require_private_head
from privacy.refusals import (
    REASONS,
    refusal,
    require_private_model,
    require_separable,
    require_separable_targets,
)
from protocol.errors import PrivacyError
from shared_models.heads import COX_HEADS, HEADS
from shared_models.networks import NETWORKS

SMALL = {
    "fcn": {},
    "prognosis": {"num_tabular": 2, "num_intervals": 3},
    "sorting": {},
    "tabular": {"num_tabular": 2, "num_intervals": 3},
    "unet": {},
}


class WithCounter(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("seen", torch.zeros(1))


@pytest.mark.parametrize(
    ("layer", "name", "what"),
    [
        (nn.BatchNorm2d(3), "batch_norm", "the network's layer '1'"),
        (nn.BatchNorm1d(3, track_running_stats=False), "batch_norm", "the network's layer '1'"),
        (
            nn.InstanceNorm2d(3, track_running_stats=True),
            "buffers",
            "the network's '1.running_mean'",
        ),
        (WithCounter(), "buffers", "the network's '1.seen'"),
        (
            nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)),
            "spectral_norm",
            "the network's layer '1.parametrizations.weight.0'",
        ),
    ],
)
def test_networks_that_mix_or_remember_patients(layer: nn.Module, name: str, what: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), layer)
    with pytest.raises(PrivacyError) as caught:
        require_private_model(model)
    assert caught.value.sentence == f"{what} cannot be private: {REASONS[name]}."


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_older_spectral_norm_is_refused_too() -> None:
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(PrivacyError, match="spectral_norm changes its state"):
        require_private_model(model)


def test_a_frozen_network_is_refused() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(PrivacyError, match="no weight of the network is trained"):
        require_private_model(model)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_of_the_project_can_be_private(name: str) -> None:
    require_private_model(NETWORKS[name](**SMALL[name]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cox_stratified", "cox"),
        ("cox_time", "cox"),
        ("cox_two_phase", "cox_two_phase"),
        ("deephit", "rank_loss"),
    ],
)
def test_heads_that_compare_patients(name: str, reason: str) -> None:
    with pytest.raises(PrivacyError) as caught:
        require_private_head((HEADS | COX_HEADS)[name])
    assert caught.value.sentence == f"head '{name}' cannot be private: {REASONS[reason]}."


@pytest.mark.parametrize("name", sorted(n for n, head in HEADS.items() if head.decomposable))
def test_heads_that_are_sums_over_patients_can_be_private(name: str) -> None:
    require_private_head(HEADS[name])


@pytest.mark.parametrize("name", ["deephit", "cox_stratified"])
def test_a_head_that_claims_to_be_a_sum_is_tried(name: str) -> None:
    liar = replace((HEADS | COX_HEADS)[name], decomposable=True, needs_baseline=False)
    with pytest.raises(PrivacyError, match="a patient's loss depends on other patients"):
        require_private_head(liar)


def test_class_weights_of_the_batch_are_no_sum_over_patients() -> None:
    def loss(rows: Mapping[str, Tensor]) -> Tensor:
        positive = rows["event"].mean()
        weight = torch.where(rows["event"] > 0, 1 / positive.clamp(min=0.1), 1.0)
        return weight * rows["score"].square()

    rows = {"event": torch.tensor([0.0, 1.0, 0.0, 0.0]), "score": torch.ones(4)}
    with pytest.raises(PrivacyError) as caught:
        require_separable(loss, rows, "the loss")
    assert caught.value.sentence == f"the loss cannot be private: {REASONS['not_a_sum']}."
    require_separable(lambda r: r["score"].square(), rows, "the loss")


def local_ipcw(months: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
    """Weights by the cohort's own Kaplan-Meier curve of censoring."""
    order, survival, weights = np.argsort(months), 1.0, np.zeros(len(months))
    for place, row in enumerate(order):
        weights[row] = (event[row] > 0) / max(survival, 0.05)
        survival *= 1 - (event[row] == 0) / (len(months) - place)
    return {"weight": weights}


def class_weights(months: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
    """Weights by how many have the event."""
    return {"weight": np.where(event > 0, 1 / max(event.mean(), 0.01), 1.0)}


@pytest.mark.parametrize("targets", [local_ipcw, class_weights])
def test_targets_that_are_computed_from_a_cohort(targets: object) -> None:
    with pytest.raises(PrivacyError) as caught:
        require_separable_targets(targets, 1, "the head")  # type: ignore[arg-type]
    assert caught.value.sentence == f"the head cannot be private: {REASONS['targets']}."


def test_pseudo_values_of_a_survival_curve_are_computed_from_a_cohort() -> None:
    def km_pseudo(months: np.ndarray, event: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
        def curve(m: np.ndarray, e: np.ndarray) -> float:
            at_risk = [(m >= t).sum() for t in m[(e > 0) & (m <= cuts[1])]]
            return float(np.prod([1 - 1 / n for n in at_risk if n]))

        number, whole = len(months), curve(months, event)
        rest = [curve(np.delete(months, i), np.delete(event, i)) for i in range(number)]
        return {"pseudo": number * whole - (number - 1) * np.array(rest)}

    with pytest.raises(PrivacyError, match="pseudo-values"):
        require_separable_targets(km_pseudo, 1, "the head")


@pytest.mark.parametrize("name", sorted(REASONS))
def test_every_reason_says_what_to_do_instead(name: str) -> None:
    sentence = refusal(name, "it").sentence
    assert sentence.startswith("it cannot be private: ") and sentence.endswith(".")
    assert len(sentence) <= 500 and "; " in sentence
    assert refusal(name, "it").code == PrivacyError.code
