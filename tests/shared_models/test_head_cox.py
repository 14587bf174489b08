import math
import warnings

import numpy as np
import pytest
import torch
from lifelines import CoxPHFitter
from pandas import DataFrame
from pycox.models.loss import cox_ph_loss
from sksurv.linear_model.coxph import CoxPHOptimizer
from torch import Tensor

from protocol.errors import ConfigError, DataError
from shared_models.heads.cox import partial_nll

with warnings.catch_warnings():
    # It compiles its validators with torch.jit, which torch 2.13 calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchsurv.loss.cox import neg_partial_log_likelihood


def _random(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 40))
    # Few distinct times: heavy ties.
    months = rng.integers(1, rng.choice([4, 12, 1000]), size).astype(np.float64)
    event = (rng.random(size) < rng.choice([0.1, 0.5, 1.0])).astype(np.int64)
    return (
        torch.from_numpy(rng.normal(0, 1.5, size)),
        torch.from_numpy(months),
        torch.from_numpy(event),
        torch.from_numpy(rng.integers(0, 3, size)),
    )


def _peer(score: Tensor, months: Tensor, event: Tensor, ties: str) -> float:
    """scikit-survival's likelihood, which is a mean over patients."""
    optimiser = CoxPHOptimizer(
        score.numpy()[:, None], event.numpy() == 1, months.numpy(), np.zeros(1), ties
    )
    return float(optimiser.nlog_likelihood(np.ones(1))) * len(score)


def test_worked_case_with_ties() -> None:
    # Relative hazards 1 2 3 4; events of the first two tied at 5, the last two leave later.
    # Breslow: -ln(1/10) - ln(2/10). Efron: the second risk set lacks half of 1 + 2: 8.5.
    score = torch.log(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    months, event = torch.tensor([5.0, 5.0, 6.0, 7.0]), torch.tensor([1, 1, 0, 0])
    breslow = partial_nll(score, months, event, ties="breslow")
    assert breslow.item() == pytest.approx(math.log(10) + math.log(5))
    efron = partial_nll(score, months, event)
    assert efron.item() == pytest.approx(math.log(10) + math.log(8.5 / 2))
    # In two strata, rows 0 and 2, rows 1 and 3: 1 of 4 and 2 of 6.
    apart = partial_nll(score, months, event, strata=torch.tensor([0, 1, 0, 1]))
    assert apart.item() == pytest.approx(math.log(4) + math.log(3))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_equals_scikit_survival_and_torchsurv_on_200_data_sets(ties: str) -> None:
    for seed in range(200):
        score, months, event, strata = _random(seed)
        found = partial_nll(score, months, event, ties=ties).item()
        assert found == pytest.approx(_peer(score, months, event, ties), rel=1e-9, abs=1e-9)
        stratified = partial_nll(score, months, event, strata=strata, ties=ties).item()
        parts = sum(
            _peer(score[own], months[own], event[own], ties)
            for own in (strata == s for s in strata.unique())
        )
        assert stratified == pytest.approx(parts, rel=1e-9, abs=1e-9)
        if event.any():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Ties in `time` detected")
                # torchsurv loses a censored patient tied with a lone event from its risk set:
                # here they leave a little later, which changes nothing else.
                peer = neg_partial_log_likelihood(
                    score,
                    event.bool(),
                    months + 0.5 * (1 - event),
                    ties_method=ties,
                    reduction="sum",
                    strata=strata,
                )
            # It adds tied events in float32 whatever it is given.
            assert stratified == pytest.approx(float(peer), rel=1e-6, abs=1e-6)


def test_equals_lifelines_at_its_optimum() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=200)
    months = np.ceil(rng.exponential(8 * np.exp(-0.7 * x)))
    frame = DataFrame({"x": x, "months": months, "event": rng.integers(0, 2, 200)})
    fit = CoxPHFitter().fit(frame, "months", "event")
    beta = torch.tensor(float(fit.params_["x"]), dtype=torch.float64, requires_grad=True)
    columns = (torch.from_numpy(frame[name].to_numpy()) for name in ("x", "months", "event"))
    covariate, time, event = columns
    loss = partial_nll(beta * covariate, time, event)
    assert loss.item() == pytest.approx(-fit.log_likelihood_, rel=1e-9)
    loss.backward()
    assert abs(beta.grad.item()) < 1e-2


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_order_of_rows_is_irrelevant_to_the_bit(ties: str) -> None:
    for seed in range(50):
        score, months, event, strata = _random(seed)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(score)))
        whole = partial_nll(score, months, event, strata=strata, ties=ties)
        mixed = partial_nll(
            score[order], months[order], event[order], strata=strata[order], ties=ties
        )
        assert torch.equal(whole, mixed)


def test_pycox_depends_on_the_order_of_ties_and_ours_does_not() -> None:
    # Two tied patients, one of them with the event, in both orders.
    score, months = torch.tensor([0.0, 1.0, 0.0]).double(), torch.tensor([1.0, 1.0, 2.0])
    event = torch.tensor([1, 0, 0])
    order = torch.tensor([1, 0, 2])
    peers = [cox_ph_loss(score[o], months[o], event[o].float()) for o in (order, order.sort()[0])]
    assert not torch.isclose(*peers)
    ours = [partial_nll(score[o], months[o], event[o]) for o in (order, order.sort()[0])]
    assert torch.equal(*ours)
    assert ours[0].item() == pytest.approx(math.log(2 + math.e))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_few_or_no_events_are_finite(ties: str) -> None:
    for size in (1, 5):
        for event in (torch.zeros(size), torch.ones(size)):
            score = torch.zeros(size).requires_grad_()
            loss = partial_nll(score, torch.ones(size), event, ties=ties, normaliser=10)
            loss.backward()
            assert torch.isfinite(loss) and torch.isfinite(score.grad).all()
            if not event.any() or size == 1:
                assert loss.item() == 0 and score.grad.abs().max() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_large_predictors_are_finite(ties: str, dtype: torch.dtype) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        score = torch.from_numpy(rng.choice([-1e3, 1e3, 0.0], 30)).to(dtype).requires_grad_()
        months = torch.from_numpy(rng.integers(1, 6, 30).astype(np.float64))
        event = torch.from_numpy(rng.integers(0, 2, 30))
        loss = partial_nll(score, months, event, ties=ties)
        loss.backward()
        assert torch.isfinite(loss) and loss >= 0
        assert torch.isfinite(score.grad).all() and score.grad.abs().max() <= 30


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_gradients_are_those_of_differences(ties: str) -> None:
    score, months, event, strata = _random(7)
    score.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: partial_nll(f, months, event, strata=strata, ties=ties), (score,)
    )


def test_the_normaliser_is_a_constant() -> None:
    score, months, event, _ = _random(9)
    whole = partial_nll(score, months, event)
    torch.testing.assert_close(partial_nll(score, months, event, normaliser=8.0), whole / 8)


def test_what_cannot_be_is_refused() -> None:
    one = torch.ones(2)
    with pytest.raises(ConfigError, match="the normaliser must be positive"):
        partial_nll(one, one, one, normaliser=0.0)
    with pytest.raises(ConfigError, match="'efron' or 'breslow'"):
        partial_nll(one, one, one, ties="exact")
    with pytest.raises(DataError, match="at least one patient"):
        partial_nll(one[:0], one[:0], one[:0])
    with pytest.raises(DataError, match="at least one patient"):
        partial_nll(one, one[:1], one)
    with pytest.raises(DataError, match="not positive and finite"):
        partial_nll(one, torch.tensor([0.0, 1.0]), one)
    with pytest.raises(DataError, match="neither 0 nor 1"):
        partial_nll(one, one, 2 * one)
