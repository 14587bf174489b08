"""The audit of a whole private round, as a hospital runs it, from the weights that leave alone."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from client.private_training import train_privately
from privacy.accountant import epsilon
from privacy.audit.canaries import CanaryNetwork, add_canaries, flip_coins
from privacy.audit.one_run import OneRunAudit, audit_one_run
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from privacy.policy import PrivacyPolicy
from protocol.training_config import LocalTraining
from shared_models.execution import Execution

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
POLICY = PrivacyPolicy(
    noise_multiplier=11.0, clip_norm=1.0, sampling_rate=0.8, steps_per_round=16, max_rounds=1,
    delta=1e-5, study_epsilon=2.0, lifetime_epsilon=2.0, statistics_noise=10.0,
)  # fmt: skip
PLAIN = LocalTraining(optimizer="sgd", weight_decay=0.0, augment=False)


class TenTimesTooQuiet(NoiseSource):
    """What a wrong unit or a lost factor would do."""

    def normal(self, shape: Sequence[int], sd: float) -> torch.Tensor:
        """Return too little noise."""
        return super().normal(shape, sd / 10)


def audited(
    digits: ModuleType, kind: type[NoiseSource], folder: Path
) -> tuple[OneRunAudit, Ledger]:
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    model = CanaryNetwork(network, 100)
    included = flip_coins(100, rng)
    before = model.pulled.weight.detach().clone()
    ledger = Ledger(folder / "ledger.jsonl")
    train_privately(
        model,
        add_canaries(digits.digit_patients(), np.arange(100), included),
        model.loss(digits.patient_loss, 100.0),
        POLICY,
        learning_rate=0.5,
        ledger=ledger,
        study="audit",
        purpose="canaries",
        source=kind(folder / "noise.json"),
        execution=Execution(threads=1),
        options=PLAIN,
        # How many canaries are in must not show in what the sum is divided by.
        public_size=150,
    )
    scores = (before - model.pulled.weight.detach())[0].double().numpy()
    return audit_one_run(scores, included, delta=POLICY.delta), ledger


@pytest.mark.parametrize("kind", [NoiseSource, TenTimesTooQuiet])
def test_what_the_ledger_charged_is_refuted_only_where_it_is_false(
    kind: type[NoiseSource], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found, ledger = audited(importlib.import_module("privacy_digits"), kind, tmp_path)
    charged = ledger.spent(POLICY.delta)
    assert charged == pytest.approx(epsilon([e.spend for e in ledger.entries()], POLICY.delta))
    assert 0.9 < charged < 1.3
    assert found.refutes(charged) == (kind is TenTimesTooQuiet), found
