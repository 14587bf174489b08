import numpy as np
import pytest
import torch
from pycox.models import PCHazard
from pycox.models.loss import nll_pc_hazard_loss
from pycox.preprocessing.discretization import DiscretizeUnknownC, Duration2Idx
from pycox.preprocessing.label_transforms import LabTransPCHazard

from shared_models.heads import HEADS
from shared_models.heads.pc_hazard import log_softplus, nll, targets

GRID = np.array([6.0, 12.0, 24.0])


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_targets_of_a_worked_case() -> None:
    # Mid-interval, at a cut, after it (1.2 of 12 months), at the end, beyond the end.
    found = targets(np.array([3.0, 12.0, 13.2, 24.0, 30.0]), np.array([1, 0, 1, 1, 1]), GRID)
    assert found["interval"].tolist() == [0, 1, 2, 2, 2]
    np.testing.assert_allclose(found["fraction"], [0.5, 1.0, 0.1, 1.0, 1.0])
    assert found["event"].tolist() == [1, 0, 1, 1, 0]


def test_likelihood_of_a_worked_case() -> None:
    # eta = .1 .4 .8; leaving a quarter into the second interval: H = .1 + .4 / 4 = .2.
    # Event: -ln .4 + .2; censored: .2.
    outputs = torch.log(torch.expm1(torch.tensor([[0.1, 0.4, 0.8]]).double())).expand(2, 3)
    found = nll(outputs, _tensors(targets(np.array([7.5, 7.5]), np.array([1, 0]), GRID)))
    torch.testing.assert_close(found, torch.tensor([0.2 - np.log(0.4), 0.2]).double())


def test_likelihood_and_targets_equal_pycox_on_200_data_sets() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        cuts = np.cumsum(rng.uniform(1, 9, rng.integers(1, 12)))
        num_patients = int(rng.integers(1, 40))
        months = np.ceil(rng.uniform(0, 1.2 * cuts[-1], num_patients) * 4) / 4 + 0.25
        event = (rng.random(num_patients) < rng.choice([0, 0.3, 1])).astype(np.float64)
        transform = LabTransPCHazard(np.concatenate(([0.0], cuts)))
        # pycox forgets these two where the grid is given.
        transform.duc = DiscretizeUnknownC(transform.cuts, right_censor=True, censor_side="right")
        transform.di = Duration2Idx(transform.cuts)
        # It also fails without events: one patient more, who is then left out.
        index, happened, fraction = (
            each[:-1]
            for each in transform.transform(np.append(months, cuts[0]), np.append(event, 1.0))
        )
        found = targets(months, event, cuts)
        assert np.array_equal(found["interval"], index)
        assert np.array_equal(found["event"], happened)
        # Beyond the grid pycox's share exceeds 1, as if the last interval went on.
        np.testing.assert_allclose(found["fraction"], np.minimum(fraction, 1), rtol=1e-6)
        # Above -15, where pycox starts to replace ln softplus(x) by x.
        outputs = torch.from_numpy(rng.uniform(-10, 10, (num_patients, len(cuts))))
        ours = _tensors(found)
        peer = nll_pc_hazard_loss(
            outputs, ours["interval"], ours["event"].double(), ours["fraction"], "none"
        )
        torch.testing.assert_close(nll(outputs, ours), peer, rtol=1e-9, atol=1e-9)


def test_survival_equals_pycox_between_the_cuts() -> None:
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    net = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(net.weight)
    peer = PCHazard(net, duration_index=np.concatenate(([0.0], GRID)), sub=4)
    frame = peer.predict_surv_df(outputs)
    curve = HEADS["pc_hazard"].survival_at(
        outputs, torch.from_numpy(GRID), torch.from_numpy(frame.index.to_numpy(dtype=np.float64))
    )
    np.testing.assert_allclose(curve.numpy(), frame.to_numpy().T, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_softplus_bears_every_number(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e4, -100.0, -20.001, -19.999, -1.0, 0.0, 30.0, 1e4], dtype=dtype)
    x.requires_grad_()
    y = log_softplus(x)
    y.sum().backward()
    expected = [
        -1e4,
        -100.0,
        np.log(np.log1p(np.exp(-20.001))),
        np.log(np.log1p(np.exp(-19.999))),
        np.log(np.log1p(np.exp(-1.0))),
        np.log(np.log(2)),
        np.log(30.0),
        np.log(1e4),
    ]
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    assert torch.isfinite(x.grad).all()
