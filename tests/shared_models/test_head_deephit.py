from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pycox.models.data import pair_rank_mat
from pycox.models.loss import nll_pmf, rank_loss_deephit_single

from protocol.errors import ConfigError
from shared_models.heads.deephit import deephit, rank_loss
from shared_models.heads.pmf import PMF


@pytest.fixture
def doubles() -> Iterator[None]:
    """Let pycox's rank loss make its ones in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_rank_loss_of_a_worked_case() -> None:
    # Incidence at the end of interval 0: .5 (event there), .2 (later), .5 (censored there).
    # Patient 0 against 1: exp(-(.5 - .2) / .3) = e^-1; against 2: exp(0) = 1; over 3 patients.
    scores = torch.log(torch.tensor([[1.0], [0.25], [1.0]]).double())
    own = {"interval": torch.tensor([0, 0, 0]), "event": torch.tensor([1, 0, 0])}
    found = rank_loss(scores, own, sigma=0.3)
    torch.testing.assert_close(found, torch.tensor([(np.exp(-1) + 1) / 3, 0.0, 0.0]).double())


@pytest.mark.usefixtures("doubles")
def test_loss_equals_pycox_on_200_data_sets() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_patients, num_intervals = int(rng.integers(1, 30)), int(rng.integers(1, 12))
        alpha, sigma = float(rng.uniform(0.05, 1)), float(rng.uniform(0.1, 2))
        scores = torch.from_numpy(rng.normal(0, 2, (num_patients, num_intervals)))
        interval = rng.integers(0, num_intervals, num_patients)
        event = (rng.random(num_patients) < rng.choice([0, 0.3, 1])).astype(np.float64)
        matrix = torch.from_numpy(pair_rank_mat(interval, event, "float64"))
        place, happened = torch.from_numpy(interval), torch.from_numpy(event)
        likelihood = nll_pmf(scores, place, happened, epsilon=0.0)
        ranked = rank_loss_deephit_single(scores, place, happened, matrix, sigma)
        found = deephit(alpha, sigma).nll(scores, {"interval": place, "event": happened}).mean()
        expected = alpha * likelihood + (1 - alpha) * ranked
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_alpha_one_is_pmf_and_a_patient_sees_the_batch_otherwise() -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    own = {"interval": torch.tensor([0, 1, 2, 3, -1, 0]), "event": torch.tensor([1, 1, 0, 1, 0, 1])}
    torch.testing.assert_close(deephit(1.0).nll(scores, own), PMF.nll(scores, own))
    first = {name: values[:3] for name, values in own.items()}
    together, apart = deephit().nll(scores, own)[:3], deephit().nll(scores[:3], first)
    assert not torch.allclose(together, apart)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.0, 0.1), (1.1, 0.1), (0.2, 0.0), (0.2, 0.001)])
def test_weights_out_of_range_are_refused(alpha: float, sigma: float) -> None:
    with pytest.raises(ConfigError, match=r"the usual values are 0.2 and 0.1"):
        deephit(alpha, sigma)
