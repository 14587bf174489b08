"""Every head and every form of Cox finds a planted risk, with the sign and the level right."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from lifelines import CoxPHFitter
from pandas import DataFrame
from scipy.stats import spearmanr
from torch import Tensor, nn

from protocol.stats.sums import merge_all
from shared_models.heads import HEADS
from shared_models.heads.cox import partial_nll
from shared_models.heads.cox_time import cox_time_loss
from shared_models.heads.cox_two_phase import risk_set_sums, surrogate_nll
from shared_models.networks import build
from shared_models.objectives import prognosis_objective

GRID = np.array([6.0, 12.0, 18.0, 24.0, 36.0, 48.0])
BETA = np.array([0.9, -0.6, 0.0])


def _cohort(num_patients: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weibull times, shape 1.3, with log hazard x BETA, and uniform censoring; whole months."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num_patients, 3))
    onset = 45 * rng.weibull(1.3, num_patients) * np.exp(-x @ BETA / 1.3)
    leave = rng.uniform(6, 72, num_patients)
    months = np.maximum(np.ceil(np.minimum(onset, leave)), 1)
    return x, months, (onset <= leave).astype(np.int64)


def _descend(parameters: list[Tensor], loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_linear_network_finds_the_risk_and_the_level(name: str) -> None:
    head, (x, months, event) = HEADS[name], _cohort()
    if head.num_causes > 1:
        event = event * np.random.default_rng(2).integers(1, 3, len(event))
    start = head.start_outputs([0.12] * len(GRID), GRID.tolist())
    model = build(
        "tabular",
        {"num_tabular": 3, "num_intervals": 6, "head": name, "hidden": (), "start": start},
    ).eval()
    batch = {key: torch.from_numpy(v) for key, v in head.targets(months, event, GRID).items()}
    batch |= {"tabular": torch.from_numpy(x).float(), "missing": torch.zeros(len(x), 3)}

    def loss() -> Tensor:
        return prognosis_objective(model, batch, head).mean()

    _descend(list(model.parameters()), loss, 150, 0.03)
    cuts = torch.from_numpy(GRID)
    with torch.no_grad():
        outputs = model(None, None, batch["tabular"], batch["missing"])
    risk = head.risk(outputs, cuts).numpy()
    assert spearmanr(risk, x @ BETA).statistic > 0.9
    truth = 1 - np.exp(-((48 / 45) ** 1.3) * np.exp(x @ BETA))
    if head.decomposable:  # DeepHit's rank term gives up the level for the order.
        assert risk.mean() == pytest.approx(truth.mean(), abs=0.05)
        assert np.abs(risk - truth).mean() < 0.08


def _reference(x: np.ndarray, months: np.ndarray, event: np.ndarray) -> np.ndarray:
    frame = DataFrame(x, columns=["a", "b", "c"]).assign(months=months, event=event)
    return CoxPHFitter().fit(frame, "months", "event").params_.to_numpy()


def test_full_batch_cox_ends_at_lifelines_coefficients() -> None:
    x, months, event = _cohort()
    beta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    fields, time, happened = (torch.from_numpy(part) for part in (x, months, event))

    def loss() -> Tensor:
        return partial_nll(fields @ beta, time, happened, normaliser=600)

    _descend([beta], loss, 300, 0.03)
    np.testing.assert_allclose(beta.detach(), _reference(x, months, event), atol=1e-3)


def test_two_phase_cox_over_hospitals_is_the_pooled_descent() -> None:
    x, months, event = _cohort(200)
    grid = tuple(float(t) for t in range(1, 73))
    hospitals = [slice(0, 20), slice(20, 21), slice(21, 200)]
    federated = torch.zeros(3, dtype=torch.float64)
    pooled = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    fields, time, happened = (torch.from_numpy(part) for part in (x, months, event))
    for _ in range(30):
        sums = merge_all(
            [risk_set_sums(fields[h] @ federated, months[h], event[h], grid) for h in hospitals]
        )
        step = torch.zeros(3, dtype=torch.float64)
        for h in hospitals:
            own = federated.clone().requires_grad_()
            surrogate_nll(fields[h] @ own, months[h], event[h], sums).backward()
            step += own.grad
        federated = federated - step / 200
        whole = partial_nll(fields @ pooled, time, happened, ties="breslow", normaliser=200)
        (gradient,) = torch.autograd.grad(whole, pooled)
        pooled = (pooled - gradient).detach().requires_grad_()
    torch.testing.assert_close(federated, pooled.detach(), rtol=1e-10, atol=1e-10)
    assert federated[0] > 0.5


def test_cox_time_finds_the_risk() -> None:
    x, months, event = _cohort()
    net = nn.Linear(4, 1, bias=False).double()
    nn.init.zeros_(net.weight)
    fields, rng = torch.from_numpy(x), np.random.default_rng(3)

    def relative(rows: Tensor, times: Tensor) -> Tensor:
        return net(torch.cat((fields[rows], times[:, None] / 48), dim=1)).squeeze(1)

    def loss() -> Tensor:
        return cox_time_loss(relative, months, event, num_controls=4, rng=rng, normaliser=600)

    _descend(list(net.parameters()), loss, 150, 0.05)
    found = net.weight.detach().numpy()[0, :3]
    np.testing.assert_allclose(found, _reference(x, months, event), atol=0.15)
