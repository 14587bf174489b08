"""What the one-run audit cannot see: noise that is used again, and a ledger that starts anew.

Within one run noise that repeats is still noise, and what a ledger forgets shows in no weight. Both
have tests of their own here, each shown to fail where the fault is put in.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.accountant import Spend, epsilon
from privacy.audit.steps import released_steps
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from privacy.policy import PrivacyPolicy
from protocol.errors import BudgetError, PrivacyError

POLICY = PrivacyPolicy(
    noise_multiplier=4.0, clip_norm=1.0, sampling_rate=1.0, steps_per_round=1, max_rounds=100,
    delta=1e-5, study_epsilon=3.0, lifetime_epsilon=3.0, statistics_noise=10.0,
)  # fmt: skip
ROUND = Spend(4.0, 1.0, 1)


class RepeatedNoise(NoiseSource):
    """A stream that begins at its beginning whenever it is opened."""

    def random_bytes(self, count: int) -> bytes:
        """Return the next bytes of a fixed stream."""
        self.rng = getattr(self, "rng", np.random.default_rng(0))
        return self.rng.bytes(count)


def release(source: NoiseSource) -> np.ndarray:
    """Return one noised sum over the same patients with the same weights, (4096,)."""
    model = nn.Linear(4096, 1, bias=False)
    nn.init.zeros_(model.weight)
    patients = {"x": torch.eye(20, 4096)}

    def loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return network(batch["x"])[:, 0]

    (released,) = released_steps(
        model, patients, loss, source, clip_norm=1.0, noise_multiplier=4.0, sampling_rate=1.0,
        num_steps=1, learning_rate=0.0,
    )  # fmt: skip
    return released["weight"][0].numpy()


def shared_noise(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of what two releases of the same sum differ from their mean."""
    return float(np.corrcoef(first[20:], second[20:])[0, 1])


def test_noise_that_repeats_between_rounds_is_found(tmp_path: Path) -> None:
    faulty = [release(RepeatedNoise(tmp_path / "unused")) for _ in range(2)]
    assert shared_noise(*faulty) > 0.99
    # Subtracted, such releases leave nothing of the noise.
    np.testing.assert_allclose(faulty[0], faulty[1])


def test_noise_does_not_repeat_over_rounds_restarts_and_restored_states(tmp_path: Path) -> None:
    state = tmp_path / "noise.json"
    source = NoiseSource(state)
    releases = [release(source), release(source)]
    shutil.copy(state, tmp_path / "copy")
    releases.append(release(NoiseSource(state)))
    # An older state put back, by a backup or on purpose.
    shutil.copy(tmp_path / "copy", state)
    releases.append(release(NoiseSource(state)))
    for first in range(4):
        assert releases[first][20:].std() == pytest.approx(4.0, rel=0.1)
        for second in range(first):
            # Five standard errors.
            assert abs(shared_noise(releases[first], releases[second])) < 5 / np.sqrt(4076)


def test_a_ledger_goes_on_after_a_restart(tmp_path: Path) -> None:
    path, spent = tmp_path / "ledger.jsonl", []
    for _ in range(3):
        ledger = Ledger(path)
        ledger.commit(ledger.reserve("study", "segment", ROUND, POLICY))
        spent.append(ledger.spent(POLICY.delta))
    assert spent == pytest.approx([epsilon([ROUND] * k, POLICY.delta) for k in (1, 2, 3)])
    # One that began anew each time would have told the first figure three times.
    assert spent[2] > 1.5 * spent[0]


def test_a_ledger_that_was_reset_grants_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.commit(ledger.reserve("study", "segment", ROUND, POLICY))
    shutil.copy(path, tmp_path / "older")
    ledger.commit(ledger.reserve("study", "segment", ROUND, POLICY))
    for reset in ("emptied", "removed", "put back"):
        kept = path.read_bytes()
        if reset == "emptied":
            path.write_bytes(b"")
        elif reset == "removed":
            path.unlink()
        else:
            shutil.copy(tmp_path / "older", path)
        with pytest.raises(PrivacyError, match="privacy ledger"):
            Ledger(path).reserve("study", "segment", ROUND, POLICY)
        path.write_bytes(kept)


def test_rounds_compose_until_the_cap_and_not_beyond(tmp_path: Path) -> None:
    path, granted = tmp_path / "ledger.jsonl", 0
    with pytest.raises(BudgetError):
        for _ in range(100):
            Ledger(path).reserve("study", "segment", ROUND, POLICY)
            granted += 1
    assert epsilon([ROUND] * granted, POLICY.delta) <= POLICY.study_epsilon
    assert epsilon([ROUND] * (granted + 1), POLICY.delta) > POLICY.study_epsilon
