"""DP-SGD at the hospital: what a round computes, in which order, and what it tells."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import client.private_training as private_training
from client.private_training import mean_over_slices, train_privately
from privacy.accountant import Spend
from privacy.gradients import PatientGradients
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from privacy.policy import PrivacyPolicy
from protocol.errors import BudgetError, PrivacyError, TrainingError
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.heads import HEADS
from shared_models.networks import build
from shared_models.objectives import prognosis_objective, segmentation_objective

NUM_PATIENTS = 12
LOSS = partial(prognosis_objective, head=HEADS["logistic_hazard"])
SGD = LocalTraining(optimizer="sgd", weight_decay=0.0)


def policy(**changes: float) -> PrivacyPolicy:
    values = {
        "noise_multiplier": 1.0,
        "clip_norm": 0.5,
        "sampling_rate": 0.5,
        "steps_per_round": 3,
        "max_rounds": 5,
        "delta": 1e-3,
        "study_epsilon": 100.0,
        "lifetime_epsilon": 100.0,
        "statistics_noise": 1.0,
        "slices_per_patient": 2,
    }
    return PrivacyPolicy.model_validate(values | changes)


def table(num_patients: int = NUM_PATIENTS) -> dict[str, Tensor]:
    rng = np.random.default_rng(1)
    rows = {
        "tabular": rng.normal(size=(num_patients, 3)).astype(np.float32),
        "missing": np.zeros((num_patients, 3), np.float32),
        "interval": rng.integers(0, 4, num_patients),
        "event": (np.arange(num_patients) % 2).astype(np.float32),
    }
    return {name: torch.from_numpy(values) for name, values in rows.items()}


def network(hidden: int = 5) -> nn.Module:
    options = {"hidden": [hidden], "dropout": 0.0, "field_dropout": 0.0}
    return build("tabular", {"num_tabular": 3, "num_intervals": 4, **options})


class Keyed(NoiseSource):
    """A source whose draws follow from a number, so that a run can be repeated in a test."""

    def __init__(self, number: int) -> None:
        self.rng = np.random.default_rng(number)

    def random_bytes(self, count: int) -> bytes:
        return self.rng.bytes(count)


class Unlimited(Ledger):
    """A ledger without caps: the accountant takes long over noise that nobody would choose."""

    def __init__(self) -> None:
        pass

    def reserve(self, *_: object, **__: object) -> str:
        return "free"

    def commit(self, reservation: str) -> None:
        assert reservation == "free"


def run(model: nn.Module, folder: Path, terms: PrivacyPolicy, **options: object) -> object:
    given = {
        "learning_rate": 0.1,
        "ledger": Unlimited(),
        "study": "study",
        "purpose": "prognosis",
        "source": Keyed(3),
        "execution": Execution(threads=1),
        "options": SGD,
    }
    return train_privately(model, table(), LOSS, terms, **(given | options))  # type: ignore[arg-type]


def test_a_step_is_the_formula(tmp_path: Path) -> None:
    # Everybody is drawn and the noise is all but none: w - eta / N sum_i clip(g_i).
    terms = policy(noise_multiplier=1e-6, sampling_rate=1.0, steps_per_round=1)
    model, expected = network(), network()
    total = {name: torch.zeros_like(p) for name, p in expected.named_parameters()}
    for row in range(NUM_PATIENTS):
        expected.zero_grad()
        LOSS(expected, {k: v[row : row + 1] for k, v in table().items()}).sum().backward()
        norm = float(torch.sqrt(sum(p.grad.square().sum() for p in expected.parameters())))
        for name, p in expected.named_parameters():
            total[name] += p.grad * min(1.0, 0.5 / norm)
    run(model, tmp_path, terms)
    before = network().state_dict()
    for name, value in model.state_dict().items():
        step = before[name] - 0.1 / NUM_PATIENTS * total[name]
        torch.testing.assert_close(value, step, rtol=1e-5, atol=1e-6)


def test_the_noise_has_the_deviation_that_is_charged(tmp_path: Path) -> None:
    # Nobody is ever drawn, so weights move by the noise alone, over the size to be expected.
    terms = policy(noise_multiplier=3.0, sampling_rate=1e-12, steps_per_round=1, clip_norm=0.5)
    moves = []
    for number in range(4):
        model = network(64)
        run(model, tmp_path / str(number), terms, source=Keyed(number), public_size=10)
        before = network(64).state_dict()
        change = [(v - before[n]).flatten() for n, v in model.state_dict().items()]
        moves.append(torch.cat(change).double() / 0.1 * (1e-12 * 10))
    moved = torch.stack(moves)
    assert float(moved.std()) == pytest.approx(3.0 * 0.5, rel=0.07)
    assert abs(float(moved.mean())) < 5 * 1.5 / moved.numel() ** 0.5
    # Two rounds share no noise.
    assert abs(np.corrcoef(moved[0].numpy(), moved[1].numpy())[0, 1]) < 5 / moved.shape[1] ** 0.5


def test_the_divisor_is_the_public_size_and_not_how_many_were_drawn(tmp_path: Path) -> None:
    terms = policy(noise_multiplier=1e-6, sampling_rate=1.0, steps_per_round=1)
    once, half = network(), network()
    run(once, tmp_path / "a", terms, public_size=10)
    run(half, tmp_path / "b", terms, public_size=20)
    before = network().state_dict()
    for name, value in once.state_dict().items():
        change = half.state_dict()[name] - before[name]
        torch.testing.assert_close(value - before[name], 2 * change, rtol=1e-3, atol=1e-6)


def test_it_is_charged_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, model = Ledger(tmp_path / "ledger.jsonl"), network()
    seen = []
    real = PatientGradients.clipped_sum

    def watched(self: PatientGradients, patients: dict[str, Tensor], clip: float) -> object:
        seen.append([(e.spend, e.committed) for e in ledger.entries()])
        return real(self, patients, clip)

    monkeypatch.setattr(PatientGradients, "clipped_sum", watched)
    run(model, tmp_path, policy(), ledger=ledger, round_index=2)
    assert seen == [[(Spend(1.0, 0.5, 3), False)]] * 3
    (entry,) = ledger.entries()
    assert entry.committed and entry.round_index == 2


def test_a_round_over_the_cap_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(private_training, "poisson_sample", None)
    with pytest.raises(BudgetError, match="declined"):
        ledger = Ledger(tmp_path / "ledger.jsonl")
        run(model, tmp_path, policy(study_epsilon=0.01), ledger=ledger)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_a_crash_is_charged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")

    def crash(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(network(), tmp_path, policy(), ledger=ledger, on_step=crash)
    (entry,) = ledger.entries()
    assert not entry.committed and ledger.spent(1e-3) > 0


def test_the_number_of_steps_is_the_policy_s_however_small_the_loss(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    def nothing_to_learn(model: nn.Module, patients: dict[str, Tensor]) -> Tensor:
        return 0.0 * LOSS(model, patients)

    summary = train_privately(
        network(),
        table(),
        nothing_to_learn,
        policy(steps_per_round=7),
        learning_rate=0.1,
        ledger=Unlimited(),
        study="study",
        purpose="prognosis",
        source=Keyed(3),
        execution=Execution(threads=1),
        on_step=lambda done, total: steps.append((done, total)),
    )
    # No early stop: it would be a statement about the patients.
    assert steps == [(k + 1, 7) for k in range(7)] and summary.num_steps == 7


def test_empty_batches_are_steps_of_noise(tmp_path: Path) -> None:
    model = network()
    run(model, tmp_path, policy(sampling_rate=1e-9), public_size=10**9)
    before = network().state_dict()
    assert all(not torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert all(bool(v.isfinite().all()) for v in model.state_dict().values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_draws_give_the_same_bits_whatever_the_seeds(
    tmp_path: Path, optimizer: str
) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state, model = torch.random.get_rng_state(), network()
        options = LocalTraining(optimizer=optimizer, proximal_mu=0.1)
        run(model, tmp_path / str(seed), policy(), options=options)
        assert torch.equal(state, torch.random.get_rng_state())
        found.append(model.state_dict())
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def test_two_runs_of_a_hospital_differ(tmp_path: Path) -> None:
    found = []
    for name in "ab":
        model = network()
        torch.manual_seed(0)
        run(model, tmp_path / name, policy(), source=NoiseSource(tmp_path / "noise.json"))
        found.append(torch.cat([v.flatten() for v in model.state_dict().values()]))
    assert not torch.allclose(*found)


def test_control_variates_are_added_after_the_noise(tmp_path: Path) -> None:
    plain, corrected = network(), network()
    shift = {name: torch.ones_like(p) for name, p in plain.named_parameters()}
    terms = policy(steps_per_round=1)
    run(plain, tmp_path / "a", terms)
    run(corrected, tmp_path / "b", terms, correction=shift)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(corrected.state_dict()[name], value - 0.1, atol=1e-5, rtol=1e-5)


def test_a_patient_s_slices_are_drawn_and_averaged(tmp_path: Path) -> None:
    counts = np.array([1, 3, 8])
    generator = torch.Generator().manual_seed(0)
    slices = {
        "images": torch.rand(12, 1, 16, 16, generator=generator),
        "labels": torch.randint(0, 4, (12, 16, 16), generator=generator),
    }
    owner = torch.repeat_interleave(torch.arange(3), torch.from_numpy(counts))
    slices["owner"] = owner
    seen: list[Tensor] = []

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        seen.append(batch["owner"])
        return segmentation_objective(model, batch)

    model = build("unet", {"channels": [3, 4]})
    train_privately(
        model,
        slices,
        mean_over_slices(loss),
        policy(sampling_rate=1.0, steps_per_round=2, slices_per_patient=4),
        learning_rate=0.01,
        ledger=Unlimited(),
        study="study",
        purpose="segment",
        source=Keyed(1),
        execution=Execution(threads=2),
        num_slices=counts,
    )
    whole = [owners for owners in seen if len(owners)]
    assert whole and all(len(owners) % 4 == 0 for owners in whole)
    for owners in whole:
        # Four rows of one patient after the other, whoever shares the call.
        assert (owners.reshape(-1, 4) == owners.reshape(-1, 4)[:, :1]).all()


def test_networks_that_cannot_be_private_are_not_charged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(PrivacyError, match="BatchNorm"):
        run(nn.Sequential(nn.BatchNorm1d(3)), tmp_path, policy(), ledger=ledger)
    assert ledger.entries() == ()


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match="not finite"):
        run(model, tmp_path, policy(noise_multiplier=1e3), learning_rate=3e38)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
