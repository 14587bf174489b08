import math

import numpy as np
import pytest
import torch
from pycox.models import CoxTime
from pycox.models.cox_time import MLPVanillaCoxTime
from pycox.models.loss import cox_cc_loss, cox_cc_loss_single_ctrl

from protocol.errors import ConfigError
from protocol.stats.sums import merge_all
from shared_models.heads.cox_time import case_control_nll, cox_time_loss, sample_controls
from shared_models.heads.cox_two_phase import risk_set_sums, survival_at


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_loss_of_a_worked_case() -> None:
    # Relative hazards 2 of the case, 1 and 3 of two controls: ln(1 + 1/2 + 3/2) = ln 3.
    case = torch.log(torch.tensor([2.0]).double())
    controls = torch.log(torch.tensor([[1.0, 3.0]]).double())
    assert case_control_nll(case, controls).item() == pytest.approx(math.log(3))


def test_loss_equals_pycox_on_200_data_sets() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_events, num_controls = int(rng.integers(1, 30)), int(rng.integers(1, 5))
        case = torch.from_numpy(rng.normal(0, 3, num_events))
        controls = torch.from_numpy(rng.normal(0, 3, (num_events, num_controls)))
        found = case_control_nll(case, controls)
        peer = cox_cc_loss(case, list(controls.T))
        torch.testing.assert_close(found.mean(), peer, rtol=1e-9, atol=1e-9)
        single = cox_cc_loss_single_ctrl(case, controls[:, 0])
        torch.testing.assert_close(
            case_control_nll(case, controls[:, :1]).mean(), single, rtol=1e-8, atol=1e-9
        )


def test_a_very_bad_case_still_has_a_gradient() -> None:
    # pycox clamps the difference at 80, beyond which nothing is learned.
    case = torch.tensor([0.0]).requires_grad_()
    case_control_nll(case, torch.tensor([[1e3]])).backward()
    assert case.grad.item() == -1.0


def test_controls_are_drawn_evenly_from_those_at_risk() -> None:
    months, event = np.array([5.0, 2.0, 5.0, 9.0, 1.0]), np.array([1, 1, 0, 0, 1])
    cases, controls = sample_controls(months, event, 30_000, _rng())
    assert cases.tolist() == [0, 1, 4]
    for case, row, at_risk in zip(
        cases, controls, ([0, 2, 3], [0, 1, 2, 3], range(5)), strict=True
    ):
        assert (months[row] >= months[case]).all()
        shares = np.bincount(row, minlength=5)[list(at_risk)] / 30_000
        np.testing.assert_allclose(shares, 1 / len(at_risk), atol=0.02)


def test_the_same_generator_draws_the_same_controls() -> None:
    months, event = np.arange(1.0, 30.0), np.ones(29)
    first, again = (sample_controls(months, event, 3, _rng())[1] for _ in range(2))
    assert np.array_equal(first, again)


def test_the_network_is_asked_at_the_time_of_the_case() -> None:
    months, event = np.array([3.0, 8.0]), np.array([1, 0])
    asked: list[tuple[list[int], list[float]]] = []

    def relative(rows: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        asked.append((rows.tolist(), times.tolist()))
        return rows.double()

    loss = cox_time_loss(relative, months, event, num_controls=4, rng=_rng(), normaliser=2.0)
    rows, times = asked[0]
    assert rows[0] == 0 and times == [3.0] * 5
    # f = 0 of the case and of itself as a control, 1 of the other patient.
    others = sum(rows[1:])
    assert loss.item() == pytest.approx(math.log(1 + (4 - others) + others * math.e) / 2)


def test_without_events_loss_and_gradient_are_zero() -> None:
    weight = torch.ones(1, requires_grad=True)
    loss = cox_time_loss(
        lambda rows, times: weight * rows, np.array([1.0, 2.0]), np.zeros(2), rng=_rng()
    )
    loss.backward()
    assert loss.item() == 0 and weight.grad.item() == 0


def test_survival_from_summed_baselines_equals_pycox() -> None:
    rng = _rng()
    x = rng.normal(size=(60, 2)).astype(np.float32)
    months = rng.integers(1, 13, 60).astype(np.float32)
    event = rng.integers(0, 2, 60).astype(np.float32)
    # pycox leaves censored patients who stand before a tied event out of its risk set.
    order = np.lexsort((-event, months))
    months, event = months[order], event[order]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = MLPVanillaCoxTime(2, [8], batch_norm=False, dropout=0.0)
    peer = CoxTime(net)
    peer.compute_baseline_hazards(x, (months, event))
    frame = peer.predict_surv_df(x)
    grid = tuple(float(t) for t in frame.index)

    def at_the_grid(rows: np.ndarray) -> torch.Tensor:
        columns = [net(torch.from_numpy(rows), torch.full((len(rows), 1), t)) for t in grid]
        return torch.cat(columns, dim=1).detach()

    parts = [slice(0, 60, 3), slice(1, 60, 3), slice(2, 60, 3)]
    pooled = merge_all(
        [risk_set_sums(at_the_grid(x[own]), months[own], event[own], grid) for own in parts]
    )
    curve = survival_at(at_the_grid(x), pooled, torch.tensor(grid))
    np.testing.assert_allclose(curve.numpy(), frame.to_numpy().T, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="give at least 1"):
        sample_controls(np.ones(2), np.ones(2), 0, _rng())
    with pytest.raises(ConfigError, match="not positive and finite"):
        cox_time_loss(lambda r, t: t, np.ones(2), np.ones(2), rng=_rng(), normaliser=0.0)
