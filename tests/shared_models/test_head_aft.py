import math
from typing import Any

import numpy as np
import pytest
import torch
from lifelines import LogLogisticFitter, LogNormalFitter, WeibullFitter
from scipy import stats

from shared_models.heads import HEADS
from shared_models.heads.aft import location_and_scale

NAMES = ["aft_log_logistic", "aft_log_normal", "aft_weibull"]
GRID = np.array([12.0, 60.0])


def _peer(name: str, mu: np.ndarray, sigma: np.ndarray) -> Any:
    if name == "aft_log_logistic":
        return stats.fisk(c=1 / sigma, scale=np.exp(mu))
    if name == "aft_log_normal":
        return stats.lognorm(s=sigma, scale=np.exp(mu))
    return stats.weibull_min(c=1 / sigma, scale=np.exp(mu))


def _outputs(mu: np.ndarray, sigma: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([mu, np.log(np.expm1(sigma - 0.05))], axis=1))


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_survival_and_median_equal_scipy_on_200_data_sets(name: str) -> None:
    head = HEADS[name]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_patients = int(rng.integers(1, 20))
        mu, sigma = rng.normal(3, 1, num_patients), rng.uniform(0.1, 2, num_patients)
        months = np.exp(mu + sigma * rng.normal(0, 1.2, num_patients))
        event = (rng.random(num_patients) < rng.choice([0, 0.3, 1])).astype(np.float64)
        outputs, law = _outputs(mu, sigma), _peer(name, mu, sigma)
        arrays = head.targets(months, event, GRID)
        own = {key: torch.from_numpy(array) for key, array in arrays.items()}
        expected = -np.where(event == 1, law.logpdf(months), law.logsf(months))
        np.testing.assert_allclose(head.nll(outputs, own), expected, rtol=1e-9, atol=1e-9)
        curve = head.survival_at(outputs, torch.from_numpy(GRID), torch.from_numpy(months))
        np.testing.assert_allclose(curve.diagonal(), law.sf(months), rtol=1e-9, atol=1e-9)
        median = head.median_months(outputs, torch.from_numpy(GRID))
        known = np.where(law.median() <= 60, law.median(), np.nan)
        np.testing.assert_allclose(median, known, rtol=1e-9)


def test_worked_cases() -> None:
    # mu = ln 10, sigma = .5, t = 20: z = 2 ln 2, e^z = 4. ln S: -ln 5; -4.
    # ln f = z - 2 ln(1 + e^z) - ln(sigma t) = ln(4 / 25 / 10); Weibull: ln(4 / 10) - 4.
    outputs = _outputs(np.full(2, math.log(10)), np.full(2, 0.5))
    own = {"months": torch.tensor([20.0, 20.0]).double(), "event": torch.tensor([0.0, 1.0])}
    found = HEADS["aft_log_logistic"].nll(outputs, own)
    torch.testing.assert_close(
        found, torch.tensor([math.log(5), math.log(62.5)], dtype=torch.float64)
    )
    found = HEADS["aft_weibull"].nll(outputs, own)
    torch.testing.assert_close(found, torch.tensor([4.0, 4 + math.log(2.5)], dtype=torch.float64))
    # z = 1: ln S = ln(1 - Phi(1)) = ln .158655, ln f = -1/2 - ln(sigma t sqrt(2 pi)).
    at = {
        "months": torch.full((2,), 10 * math.exp(0.5), dtype=torch.float64),
        "event": own["event"],
    }
    found = HEADS["aft_log_normal"].nll(outputs, at)
    density = 0.5 + math.log(0.5 * 10 * math.exp(0.5) * math.sqrt(2 * math.pi))
    torch.testing.assert_close(
        found, torch.tensor([1.8410216450092636, density], dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_tails_equal_scipy(name: str) -> None:
    head = HEADS[name]
    z = np.array([-30.0, -9.0, 0.999, 1.0, 1.001, 3.3])
    months, sigma = np.exp(3 + 0.5 * z), np.full(6, 0.5)
    outputs, law = _outputs(np.full(6, 3.0), sigma), _peer(name, np.full(6, 3.0), sigma)
    for event, expected in ((0, -law.logsf(months)), (1, -law.logpdf(months))):
        own = {"months": torch.from_numpy(months), "event": torch.full((6,), float(event))}
        np.testing.assert_allclose(head.nll(outputs, own), expected, rtol=1e-9, atol=1e-15)


def test_log_normal_far_tail_follows_mills_ratio() -> None:
    # ln(1 - Phi(z)) -> -z^2/2 - ln(z sqrt(2 pi)) - 1/z^2.
    outputs = _outputs(np.zeros(1), np.ones(1))
    own = {"months": torch.tensor([math.exp(200.0)], dtype=torch.float64), "event": torch.zeros(1)}
    expected = 200**2 / 2 + math.log(200 * math.sqrt(2 * math.pi)) + 1 / 200**2
    assert HEADS["aft_log_normal"].nll(outputs, own).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "fitter"),
    [
        ("aft_log_logistic", LogLogisticFitter),
        ("aft_log_normal", LogNormalFitter),
        ("aft_weibull", WeibullFitter),
    ],
)
def test_the_minimum_is_where_lifelines_finds_it(name: str, fitter: Any) -> None:
    rng = np.random.default_rng(3)
    onset, end = 20 * rng.weibull(1.4, 300), rng.uniform(5, 40, 300)
    months, event = np.minimum(onset, end), (onset <= end).astype(int)
    peer = fitter().fit(months, event)
    head = HEADS[name]
    own = {k: torch.from_numpy(v) for k, v in head.targets(months, event, GRID).items()}
    outputs = torch.tensor([[3.0, 0.5]]).double().requires_grad_()
    optimiser = torch.optim.LBFGS([outputs], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = head.nll(outputs.expand(300, 2), own).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert -closure().item() == pytest.approx(float(peer.log_likelihood_), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_scale_stays_off_zero_and_float32_keeps_its_digits(name: str) -> None:
    _, sigma = location_and_scale(torch.tensor([[0.0, -1e3], [0.0, 1e3]]))
    torch.testing.assert_close(sigma, torch.tensor([[0.05], [1000.05]]))
    outputs = _outputs(np.array([4.8]), np.array([0.3]))
    own = {"months": torch.tensor([120.03]).double(), "event": torch.tensor([1.0])}
    exact, single = HEADS[name].nll(outputs, own), HEADS[name].nll(outputs.float(), own)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)


def test_log_logistic_gradient_in_mu_is_within_one_over_sigma() -> None:
    outputs = torch.randn(200, 2, generator=torch.Generator().manual_seed(4)).double() * 4
    outputs.requires_grad_()
    own = {"months": torch.rand(200).double() * 100 + 0.1, "event": torch.arange(200) % 2}
    HEADS["aft_log_logistic"].nll(outputs, own).sum().backward()
    _, sigma = location_and_scale(outputs.detach())
    assert (outputs.grad[:, 0].abs() <= 1 / sigma[:, 0]).all()
