import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from pandas import DataFrame
from torch import nn

from protocol.errors import DataError, PayloadError
from protocol.stats.sums import merge_all
from shared_models.heads.cox import partial_nll
from shared_models.heads.cox_two_phase import (
    RiskSetSums,
    baseline_hazard,
    risk_set_sums,
    surrogate_nll,
    survival_at,
)

Hospital = tuple[np.ndarray, np.ndarray, np.ndarray]
MONTHS = tuple(float(k) for k in range(1, 25))


def _hospitals(num_hospitals: int, seed: int) -> list[Hospital]:
    """Covariates, times in whole months (ties within and across) and events; the first has none."""
    rng = np.random.default_rng(seed)
    hospitals = []
    for index in range(num_hospitals):
        size = int(rng.integers(1, 40))
        x = rng.normal(index, 1, (size, 3))
        months = np.minimum(np.ceil(rng.exponential(10, size)), 30.0)
        event = (rng.random(size) < 0.5).astype(np.int64)
        if index == 0 and num_hospitals > 1:
            event[:] = 0
        hospitals.append((x, months, event))
    return hospitals


def _network() -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=generator)
    return net


def _score(net: nn.Module, x: np.ndarray) -> torch.Tensor:
    return net(torch.from_numpy(x)).squeeze(1)


def _pooled(hospitals: list[Hospital], net: nn.Module, grid: tuple[float, ...]) -> RiskSetSums:
    return merge_all([risk_set_sums(_score(net, x), t, d, grid) for x, t, d in hospitals])


def _gradient(net: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


@pytest.mark.parametrize("num_hospitals", [1, 2, 3, 4, 5])
def test_gradients_of_the_hospitals_add_to_the_pooled_one(num_hospitals: int) -> None:
    net = _network()
    for seed in range(20):
        hospitals = _hospitals(num_hospitals, seed)
        x, months, event = (np.concatenate(part) for part in zip(*hospitals, strict=True))
        event = np.where(months <= MONTHS[-1], event, 0)
        whole = partial_nll(
            _score(net, x), torch.from_numpy(months), torch.from_numpy(event), ties="breslow"
        )
        pooled = _pooled(hospitals, net, MONTHS)
        parts = [
            _gradient(net, surrogate_nll(_score(net, x), t, d, pooled)) for x, t, d in hospitals
        ]
        torch.testing.assert_close(sum(parts), _gradient(net, whole), rtol=1e-10, atol=1e-10)
        assert pooled.partial_log_likelihood() == pytest.approx(-whole.item(), rel=1e-12, abs=1e-12)


def test_any_times_are_exact_when_the_grid_holds_those_of_the_events() -> None:
    net = _network()
    rng = np.random.default_rng(2)
    hospitals = [
        (rng.normal(size=(20, 3)), rng.exponential(10, 20) + 0.1, rng.integers(0, 2, 20))
        for _ in range(3)
    ]
    x, months, event = (np.concatenate(part) for part in zip(*hospitals, strict=True))
    grid = tuple(np.unique(months[event == 1]).tolist())
    pooled = _pooled(hospitals, net, grid)
    whole = partial_nll(_score(net, x), torch.from_numpy(months), torch.from_numpy(event))
    assert pooled.partial_log_likelihood() == pytest.approx(-whole.item(), rel=1e-12)
    parts = [_gradient(net, surrogate_nll(_score(net, x), t, d, pooled)) for x, t, d in hospitals]
    torch.testing.assert_close(sum(parts), _gradient(net, whole), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("events", ["all at one hospital", "one", "the same patients twice"])
def test_lopsided_federations_are_exact(events: str) -> None:
    net, hospitals = _network(), _hospitals(3, 8)
    if events == "the same patients twice":
        hospitals[1] = hospitals[2]
    else:
        for index, (_, months, event) in enumerate(hospitals):
            months[:] = np.minimum(months, 24.0)
            event[:] = index == 2 and events == "all at one hospital"
        hospitals[2][2][0] = 1
    x, months, event = (np.concatenate(part) for part in zip(*hospitals, strict=True))
    event = np.where(months <= MONTHS[-1], event, 0)
    assert event.sum() == 1 or events != "one"
    whole = partial_nll(
        _score(net, x), torch.from_numpy(months), torch.from_numpy(event), ties="breslow"
    )
    pooled = _pooled(hospitals, net, MONTHS)
    parts = [_gradient(net, surrogate_nll(_score(net, x), t, d, pooled)) for x, t, d in hospitals]
    torch.testing.assert_close(sum(parts), _gradient(net, whole), rtol=1e-10, atol=1e-10)
    # Loss of a hospital by its sums: withdrawing it leaves the others' likelihood.
    rest = merge_all([risk_set_sums(_score(net, x), t, d, MONTHS) for x, t, d in hospitals[:2]])
    x, months, event = (np.concatenate(part) for part in zip(*hospitals[:2], strict=True))
    event = np.where(months <= MONTHS[-1], event, 0)
    alone = partial_nll(
        _score(net, x), torch.from_numpy(months), torch.from_numpy(event), ties="breslow"
    )
    assert rest.partial_log_likelihood() == pytest.approx(-alone.item(), rel=1e-12, abs=1e-12)


def test_worked_case() -> None:
    # Grid 6, 12. Hazards 1 (event at 4), 2 (censored at 9), 3 (event at 12), 4 (followed to 20).
    # At risk at 6: all, 10; at 12: 3 + 4 = 7. H0 = 1/10, 1/10 + 1/7.
    score = torch.log(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    sums = risk_set_sums(
        score, np.array([4.0, 9.0, 12.0, 20.0]), np.array([1, 0, 1, 1]), (6.0, 12.0)
    )
    np.testing.assert_allclose(np.exp(sums.log_sums), [10, 7])
    assert sums.at_risk.tolist() == [4, 2] and sums.events.tolist() == [1, 1]
    assert sums.event_log_hazard == pytest.approx(math.log(3))
    assert sums.partial_log_likelihood() == pytest.approx(math.log(3 / 70))
    np.testing.assert_allclose(baseline_hazard(sums), [1 / 10, 1 / 7])
    curve = survival_at(score[1:2], sums, torch.tensor([0.0, 5.9, 6.0, 12.0, 50.0]))
    later = math.exp(-2 * (1 / 10 + 1 / 7))
    np.testing.assert_allclose(curve[0], [1, 1, math.exp(-0.2), later, later])


def test_baseline_equals_lifelines() -> None:
    hospitals = _hospitals(4, 11)
    x, months, event = (np.concatenate(part) for part in zip(*hospitals, strict=True))
    event = np.where(months <= MONTHS[-1], event, 0)
    frame = DataFrame({"x": x[:, 0], "months": months, "event": event})
    fit = CoxPHFitter().fit(frame, "months", "event")
    beta = float(fit.params_["x"])
    pooled = merge_all(
        [risk_set_sums(torch.from_numpy(beta * x[:, 0]), t, d, MONTHS) for x, t, d in hospitals]
    )
    # lifelines centres the covariate.
    centred = baseline_hazard(pooled) * math.exp(beta * x[:, 0].mean())
    expected = fit.baseline_hazard_["baseline hazard"].reindex(MONTHS).fillna(0)
    np.testing.assert_allclose(centred, expected, rtol=1e-9)
    # Where nobody leaves, lifelines draws a straight line; the estimate is a step.
    times = np.unique(months[months <= MONTHS[-1]])
    curve = survival_at(torch.tensor([beta * 1.5]).double(), pooled, torch.from_numpy(times))
    peer = fit.predict_survival_function(DataFrame({"x": [1.5]}), times=times)
    np.testing.assert_allclose(curve[0], peer.to_numpy()[:, 0], rtol=1e-6)


def _close(left: RiskSetSums, right: RiskSetSums) -> None:
    assert left.at_risk.tolist() == right.at_risk.tolist()
    assert left.events.tolist() == right.events.tolist()
    np.testing.assert_allclose(left.log_sums, right.log_sums, rtol=1e-12, atol=1e-12)
    assert left.event_log_hazard == pytest.approx(right.event_log_hazard, rel=1e-12, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 100))
def test_sums_are_associative_commutative_and_indifferent_to_splitting(seed: int, cut: int) -> None:
    net, hospitals = _network(), _hospitals(3, seed)
    a, b, c = (risk_set_sums(_score(net, x), t, d, MONTHS) for x, t, d in hospitals)
    _close((a + b) + c, a + (b + c))
    assert a + b == b + a
    assert a + RiskSetSums.empty(MONTHS) == a
    x, t, d = hospitals[1]
    halves = [
        risk_set_sums(_score(net, x[s]), t[s], d[s], MONTHS)
        for s in (slice(None, cut), slice(cut, None))
    ]
    _close(merge_all(halves), b)
    assert RiskSetSums.from_dict(json.loads(json.dumps(a.to_dict()))) == a


def test_unlike_hospitals_neither_overflow_nor_vanish() -> None:
    # One hospital's patients have e^1000 times the hazard and leave first.
    months, event = np.array([1.0, 2.0]), np.array([1, 1])
    scores = [torch.full((2,), f, dtype=torch.float64, requires_grad=True) for f in (1e3, -1e3)]
    times = [months, months + 5]
    pooled = merge_all(
        [risk_set_sums(f, t, event, MONTHS) for f, t in zip(scores, times, strict=True)]
    )
    assert np.isfinite(pooled.log_sums).all() and pooled.log_sums[5] == pytest.approx(
        math.log(2) - 1e3
    )
    for score, time in zip(scores, times, strict=True):
        loss = surrogate_nll(score, time, event, pooled)
        loss.backward()
        # The first of two alike: 1/2 - 1; the second: 1/2 + 1 - 1.
        torch.testing.assert_close(score.grad, torch.tensor([-0.5, 0.5]).double())
    curve = survival_at(torch.tensor([-1e3, 1e3]).double(), pooled, torch.tensor(MONTHS))
    assert torch.isfinite(curve).all() and (curve.diff(dim=1) <= 0).all()


def test_no_event_and_no_patient_are_finite() -> None:
    none = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    empty = risk_set_sums(none, np.zeros(0), np.zeros(0), MONTHS)
    assert empty == RiskSetSums.empty(MONTHS)
    assert surrogate_nll(none, np.zeros(0), np.zeros(0), empty).item() == 0
    one = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sums = risk_set_sums(one, np.array([3.0]), np.array([0]), MONTHS)
    surrogate_nll(one, np.array([3.0]), np.array([0]), sums).backward()
    assert not one.grad.any() and not baseline_hazard(sums).any()
    assert (survival_at(one.detach(), sums, torch.tensor(MONTHS)) == 1).all()


def test_few_patients_between_grid_points_stay_at_home() -> None:
    months = np.array([5.0] * 6 + [11.0] * 6)
    sums = risk_set_sums(torch.zeros(12), months, np.tile([1, 1, 1, 1, 1, 0], 2), (6.0, 12.0))
    sums.require_cells(5)
    with pytest.raises(DataError, match="fewer than 6 patients leave or have the event"):
        sums.require_cells(6)
    RiskSetSums.empty(MONTHS).require_cells(5)


def test_impossible_sums_are_refused() -> None:
    good = RiskSetSums.empty((6.0, 12.0)).to_dict()
    cases = [
        ({"grid_months": [6.0, 6.0]}, "must rise from above 0 over 1 to 120"),
        ({"grid_months": [6.0]}, "one entry a grid point"),
        ({"log_sums": [0.0, math.nan]}, "finite"),
        ({"at_risk": [1, 2]}, "more patients"),
        ({"at_risk": [1, 0], "events": [2, 0]}, "more patients"),
        ({"at_risk": [-1, 0]}, "whole numbers"),
    ]
    for change, sentence in cases:
        with pytest.raises(PayloadError, match=sentence):
            RiskSetSums.from_dict({**good, **change})
    with pytest.raises(PayloadError, match="different grids"):
        RiskSetSums.empty((6.0,)).merge(RiskSetSums.empty((7.0,)))
    with pytest.raises(DataError, match="log hazard is not finite"):
        risk_set_sums(torch.tensor([math.inf]), np.array([1.0]), np.array([1]), (6.0,))
    with pytest.raises(PayloadError, match="1 to 120 points"):
        RiskSetSums.empty(tuple(float(k) for k in range(1, 122)))
