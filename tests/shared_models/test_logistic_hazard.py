import numpy as np
import pytest
import torch
from pycox.models.loss import nll_logistic_hazard

from protocol.errors import DataError
from shared_models.heads.logistic_hazard import (
    discretise,
    median_months,
    nll,
    restricted_mean_months,
    risk_score,
    survival_at,
    survival_curve,
)

GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(50, 6, generator=GENERATOR) * 2 - 1
INTERVAL = torch.randint(0, 6, (50,), generator=GENERATOR)
EVENT = torch.randint(0, 2, (50,), generator=GENERATOR).float()
CUTS = torch.tensor([6.0, 12.0, 24.0, 36.0, 48.0, 60.0])
GRID = CUTS.numpy()


def test_likelihood_equals_pycox() -> None:
    peer = nll_logistic_hazard(LOGITS, INTERVAL, EVENT, reduction="none")
    torch.testing.assert_close(nll(LOGITS, INTERVAL, EVENT), peer.view(-1))


def test_likelihood_of_a_worked_case() -> None:
    # Hazards .1 .2 .5; event in the second interval: -ln(.9 * .2); censored there: -ln(.9 * .8).
    hazards = torch.tensor([[0.1, 0.2, 0.5]])
    logits = torch.log(hazards / (1 - hazards)).expand(3, 3)
    found = nll(logits, torch.tensor([1, 1, -1]), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(found, -torch.log(torch.tensor([0.18, 0.72, 1.0])))
    torch.testing.assert_close(survival_curve(logits)[0], torch.tensor([0.9, 0.72, 0.36]))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[-200.0, 200.0]]).requires_grad_()
    nll(logits, torch.tensor([0]), torch.tensor([1.0])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert nll(logits, torch.tensor([0]), torch.tensor([1.0])).item() == pytest.approx(200.0)


def test_gradient_of_a_logit_is_bounded_by_one() -> None:
    logits = (LOGITS * 10).requires_grad_()
    nll(logits, INTERVAL, EVENT).sum().backward()
    assert logits.grad.abs().max() <= 1


def test_discretise_follows_the_written_rule() -> None:
    # Event at a cut, after it, beyond the grid; censored late, early, at once, beyond; last cut.
    months = np.array([12.0, 12.1, 70.0, 18.0, 17.9, 2.0, 70.0, 60.0])
    event = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    interval, observed = discretise(months, event, GRID)
    assert interval.tolist() == [1, 2, 5, 2, 1, -1, 5, 5]
    assert observed.tolist() == [1, 1, 0, 0, 0, 0, 0, 1]
    assert interval.dtype == np.int64 and observed.dtype == np.float32


def test_rates_survive_discretising() -> None:
    # Constant hazard .02 a month, uniform censoring: interval hazards must come out unbiased.
    rng = np.random.default_rng(5)
    times, leave = rng.exponential(50, 200_000), rng.uniform(0, 80, 200_000)
    interval, event = discretise(np.minimum(times, leave), (times <= leave).astype(int), GRID)
    widths = np.diff(GRID, prepend=0)
    for k, width in enumerate(widths):
        hazard = event[interval == k].sum() / (interval >= k).sum()
        assert hazard == pytest.approx(1 - np.exp(-0.02 * width), rel=0.02)


@pytest.mark.parametrize(
    ("months", "event", "cuts", "sentence"),
    [
        ([0.0], [1], [6.0], "not positive and finite"),
        ([np.nan], [1], [6.0], "not positive and finite"),
        ([1.0], [2], [6.0], "neither 0 nor 1"),
        ([1.0], [1], [6.0, 6.0], "does not rise from 0"),
        ([1.0], [1], [0.0, 6.0], "does not rise from 0"),
    ],
)
def test_impossible_outcomes_are_refused(
    months: list[float], event: list[int], cuts: list[float], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        discretise(np.array(months), np.array(event), np.array(cuts))


def test_survival_falls_and_agrees_with_the_score() -> None:
    curve = survival_curve(LOGITS)
    assert (curve[:, 1:] <= curve[:, :-1]).all() and (curve > 0).all() and (curve < 1).all()
    torch.testing.assert_close(risk_score(LOGITS), -torch.log(curve[:, -1]))
    torch.testing.assert_close(survival_at(LOGITS, CUTS, CUTS), curve)
    ends = survival_at(LOGITS, CUTS, torch.tensor([0.0, 60.0, 100.0]))
    torch.testing.assert_close(ends[:, 0], torch.ones(50))
    torch.testing.assert_close(ends[:, 2], ends[:, 1])


def test_restricted_mean_is_the_area_under_the_curve() -> None:
    months = torch.linspace(0, 60, 6001)
    area = torch.trapezoid(survival_at(LOGITS, CUTS, months), months, dim=1)
    torch.testing.assert_close(restricted_mean_months(LOGITS, CUTS), area, rtol=1e-3, atol=1e-3)


def test_median_halves_the_curve_or_is_unknown() -> None:
    median = median_months(LOGITS, CUTS)
    reached = survival_curve(LOGITS)[:, -1] <= 0.5
    assert torch.equal(torch.isfinite(median), reached)
    halves = survival_at(LOGITS[reached], CUTS, median[reached]).diagonal()
    torch.testing.assert_close(halves, torch.full_like(halves, 0.5))
