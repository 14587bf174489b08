"""Laws of the Cox heads: losses by hand, curves once there is a baseline hazard."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from protocol.errors import ConfigError, DataError
from shared_models.heads import COX_HEADS, HEADS, Head, choose_head, require_decomposable
from shared_models.heads.cox import event_terms, partial_nll
from shared_models.heads.cox_time import interval_terms
from shared_models.heads.cox_two_phase import baseline_hazard, risk_set_sums, survival_at
from shared_models.heads.relative_hazard import at_grid, with_baseline
from shared_models.networks import build
from shared_models.objectives import risk_set_objective

CUTS = torch.tensor([6.0, 12.0, 24.0, 36.0], dtype=torch.float64)
GRID = (3.0, 6.0, 9.0, 12.0, 24.0, 36.0)
HAZARD = (0.1, 0.0, 0.2, 0.05, 0.3, 0.2)
ALL = sorted(COX_HEADS)


def outcome(seed: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.ceil(rng.exponential(15, size)), rng.integers(0, 2, size)


def fitted(name: str) -> tuple[Head, torch.Tensor]:
    head = COX_HEADS[name]
    rng = np.random.default_rng(4)
    outputs = torch.from_numpy(rng.normal(0, 1.5, (50, head.num_outputs(len(CUTS)))))
    return with_baseline(head, GRID, HAZARD), outputs


def targets(name: str, seed: int) -> dict[str, torch.Tensor]:
    found = COX_HEADS[name].targets(*outcome(seed), CUTS.numpy())
    return {key: torch.from_numpy(values) for key, values in found.items()}


@pytest.mark.parametrize("name", ALL)
def test_curves_start_at_one_fall_and_integrate(name: str) -> None:
    head, outputs = fitted(name)
    months = torch.linspace(0, 50, 101, dtype=torch.float64)
    curve = head.survival_at(outputs, CUTS, months)
    assert curve.dtype == torch.float64 and torch.isfinite(curve).all()
    torch.testing.assert_close(curve[:, 0], torch.ones(50).double())
    assert (curve.diff(dim=1) <= 1e-14).all() and (curve >= 0).all()
    median = head.median_months(outputs, CUTS)
    known = torch.isfinite(median)
    assert torch.equal(known, head.survival_at(outputs, CUTS, CUTS[-1:])[:, 0] <= 0.5)
    halves = head.survival_at(outputs[known], CUTS, median[known]).diagonal()
    torch.testing.assert_close(halves, torch.full_like(halves, 0.5), rtol=0, atol=1e-9)
    one = outputs[:1]
    area, _ = quad(
        lambda t: float(head.survival_at(one, CUTS, torch.tensor([t], dtype=torch.float64))),
        0, 36, points=GRID[:-1], epsabs=1e-10,
    )  # fmt: skip
    assert float(head.restricted_mean_months(one, CUTS)) == pytest.approx(area, abs=1e-7)
    assert float(head.risk(one, CUTS)) == pytest.approx(1 - float(curve[0, 72]), abs=1e-12)


@pytest.mark.parametrize("name", ["cox_stratified", "cox_time"])
def test_at_the_points_the_curve_is_breslows(name: str) -> None:
    months, event = outcome(1)
    head, outputs = fitted(name)
    outputs = outputs[:1].repeat(60, 1) * torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    score = at_grid(outputs, CUTS.tolist(), GRID)
    sums = risk_set_sums(score, months, event, GRID)
    head = with_baseline(head, GRID, baseline_hazard(sums))
    points = torch.tensor(GRID, dtype=torch.float64)
    expected = survival_at(score, sums, points)
    torch.testing.assert_close(head.survival_at(outputs, CUTS, points), expected)


def test_a_time_is_in_the_interval_that_holds_it() -> None:
    outputs = torch.arange(4.0)[None, :]
    at = at_grid(outputs, CUTS.tolist(), [3.0, 6.0, 6.5, 36.0, 99.0])
    assert at.tolist() == [[0.0, 0.0, 1.0, 3.0, 3.0]]


def test_terms_add_up_to_the_likelihood_whatever_the_order() -> None:
    months, event = (torch.from_numpy(part) for part in outcome(2))
    score = torch.from_numpy(np.random.default_rng(3).normal(size=60))
    terms = event_terms(score, months, event)
    assert terms.sum() == pytest.approx(float(partial_nll(score, months, event)), rel=1e-13)
    assert (terms[event == 0] == 0).all()
    order = torch.from_numpy(np.random.default_rng(5).permutation(60))
    torch.testing.assert_close(
        event_terms(score[order], months[order], event[order]), terms[order], rtol=1e-12, atol=1e-12
    )
    nobody = event_terms(score.requires_grad_(), months, torch.zeros_like(event))
    nobody.sum().backward()
    assert score.grad is not None and not score.grad.any() and not nobody.any()


def test_cox_time_by_hand() -> None:
    months, event = torch.tensor([5.0, 8.0, 8.0, 20.0]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    f = torch.tensor([[0.1, 1.0, 2.0], [0.2, 1.1, 2.1], [0.4, 1.3, 2.2], [0.8, 1.7, 2.3]])
    terms = interval_terms(f, torch.tensor([0, 1, 1, 2]), months, event)
    first = np.log(1 + np.exp(0.1) + np.exp(0.3) + np.exp(0.7))
    second = np.log(1 + np.exp(0.2) + np.exp(0.6))
    np.testing.assert_allclose(terms, [first, second, 0, 0], rtol=1e-6)


def test_cox_time_that_does_not_change_with_time_is_cox_with_breslows_ties() -> None:
    months, event = (torch.from_numpy(part) for part in outcome(6))
    score = torch.from_numpy(np.random.default_rng(7).normal(size=60))
    interval = torch.from_numpy(np.searchsorted([10.0, 20.0], months.numpy()))
    terms = interval_terms(score[:, None].repeat(1, 3), interval, months, event)
    breslow = partial_nll(score, months, event, ties="breslow")
    assert float(terms.sum()) == pytest.approx(float(breslow), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_s_loss_is_the_likelihood_over_the_common_number(name: str) -> None:
    options = {"channels": [], "hidden": 0, "num_tabular": 2, "num_intervals": 4, "head": name}
    model = build("prognosis", {**options, "field_dropout": 0.0})
    rng = np.random.default_rng(8)
    table = torch.from_numpy(rng.normal(size=(60, 2)).astype(np.float32))
    batch = {
        **targets(name, 8),
        "images": torch.zeros(60, 3, 0, 1, 1),
        "slice_present": torch.zeros(60, 0),
        "tabular": table,
        "missing": torch.zeros_like(table),
    }
    with torch.no_grad():
        model.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
        loss = risk_set_objective(model, batch, COX_HEADS[name], 20.0).mean()
        outputs = model(batch["images"], batch["slice_present"], table, batch["missing"])
    total = COX_HEADS[name].nll(outputs, batch).sum()
    assert float(loss) == pytest.approx(float(total) / 20, rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_beyond_the_grid_is_censored_at_its_end(name: str) -> None:
    found = COX_HEADS[name].targets(np.array([36.0, 40.0]), np.array([1, 1]), CUTS.numpy())
    assert found["months"].tolist() == [36.0, 36.0] and found["event"].tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="neither 0 nor 1"):
        COX_HEADS[name].targets(np.array([1.0]), np.array([2]), CUTS.numpy())


@pytest.mark.parametrize("name", ALL)
def test_before_training_there_is_no_curve_and_never_differential_privacy(name: str) -> None:
    head = choose_head(name)
    outputs = torch.zeros(2, head.num_outputs(4))
    with pytest.raises(ConfigError, match="no baseline hazard before the hospitals' risk sets"):
        head.risk(outputs, CUTS)
    with pytest.raises(ConfigError, match="compares patients with each other"):
        require_decomposable(head)
    assert name not in HEADS and head.start_outputs([0.1] * 4, CUTS.tolist()) == (0.0,) * len(
        outputs[0]
    )


@pytest.mark.parametrize(
    ("grid", "hazard"), [((3.0, 3.0), (0.1, 0.1)), ((3.0,), (-0.1,)), ((3.0,), (0.1, 0.2))]
)
def test_a_baseline_that_is_none_is_refused(
    grid: tuple[float, ...], hazard: tuple[float, ...]
) -> None:
    with pytest.raises(ConfigError, match="take it from the hospitals' risk sets"):
        with_baseline(COX_HEADS["cox_time"], grid, hazard)
