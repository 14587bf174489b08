"""Laws of every survival head, whatever its family."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.func import grad, vmap

from protocol.errors import ConfigError, DataError
from shared_models.heads import HEADS, Head, choose_head, require_decomposable
from shared_models.networks import build
from shared_models.objectives import prognosis_objective

GRID = np.array([3.0, 6.0, 12.0, 18.0, 30.0, 60.0])
CUTS = torch.from_numpy(GRID)
ALL = sorted(HEADS)
SUMS = [name for name in ALL if HEADS[name].decomposable]
CONTINUOUS = [name for name in ALL if name.startswith("aft")] + ["pc_hazard"]


def _outputs(head: Head, num_patients: int, seed: int, scale: float = 1.5) -> Tensor:
    rng = np.random.default_rng(seed)
    centre = -2.5 if head.num_causes > 1 else -1
    values = rng.normal(centre, scale, (num_patients, head.num_outputs(len(GRID))))
    if head.name.startswith("aft"):
        values[:, 0] = rng.normal(3, 1, num_patients)
    return torch.from_numpy(values)


def _outcomes(head: Head, num_patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    months = np.round(rng.exponential(30, num_patients), 1) + 0.1
    return months, rng.integers(0, head.num_causes + 1, num_patients)


def _targets(head: Head, months: object, event: object) -> dict[str, Tensor]:
    arrays = head.targets(np.atleast_1d(months), np.atleast_1d(event), GRID)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ALL)
def test_survival_starts_at_one_and_never_rises(name: str) -> None:
    head = HEADS[name]
    months = torch.cat((torch.linspace(0, 60, 121), torch.tensor([90.0, 1e4])))
    for scale in (0.1, 2.0, 50.0):
        curve = head.survival_at(_outputs(head, 40, 1, scale), CUTS, months)
        assert curve.dtype == torch.float64 and torch.isfinite(curve).all()
        torch.testing.assert_close(curve[:, 0], torch.ones(40).double(), rtol=0, atol=1e-14)
        assert (curve >= 0).all() and (curve <= 1).all()
        assert (curve.diff(dim=1) <= 1e-14).all()


@pytest.mark.parametrize("name", ALL)
def test_curve_and_risk_are_the_survival_at_the_cuts(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 20, 2)
    curve = head.survival_curve(outputs, CUTS)
    assert torch.equal(curve, head.survival_at(outputs, CUTS, CUTS))
    torch.testing.assert_close(head.risk(outputs, CUTS), 1 - curve[:, -1])


@pytest.mark.parametrize("name", ALL)
def test_median_halves_the_curve_or_is_unknown(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 300, 3)
    median = head.median_months(outputs, CUTS)
    reached = head.survival_curve(outputs, CUTS)[:, -1] <= 0.5
    assert reached.any() and not reached.all()
    assert torch.equal(torch.isfinite(median), reached)
    halves = head.survival_at(outputs[reached], CUTS, median[reached]).diagonal()
    torch.testing.assert_close(halves, torch.full_like(halves, 0.5), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_restricted_mean_is_the_area_under_the_curve(name: str) -> None:
    head = HEADS[name]
    for outputs in (_outputs(head, 6, 4), _outputs(head, 6, 5, scale=4.0)):
        for row, mean in zip(outputs, head.restricted_mean_months(outputs, CUTS), strict=True):

            def survival(t: float, row: Tensor = row) -> float:
                return float(head.survival_at(row[None], CUTS, torch.tensor([t]).double()))

            ends = [1e-9, 1e-4, 1e-2, 0.3, *GRID.tolist()]
            area = sum(
                quad(survival, lo, hi, epsabs=1e-10, limit=200)[0]
                for lo, hi in zip([0.0, *ends[:-1]], ends, strict=True)
            )
            assert float(mean) == pytest.approx(area, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("name", SUMS)
def test_a_censored_patient_has_the_likelihood_of_surviving(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 1, 6)
    times = np.array([4.0, 7.5, 31.0, 60.0]) if name in CONTINUOUS else GRID
    for t in times:
        found = head.nll(outputs, _targets(head, t, 0)).exp()
        survived = head.survival_at(outputs, CUTS, torch.tensor([t]))
        torch.testing.assert_close(found, 1 / survived[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(set(SUMS) - set(CONTINUOUS)))
def test_probabilities_of_all_outcomes_on_the_grid_add_to_one(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 1, 7)
    total = (-head.nll(outputs, _targets(head, GRID[-1], 0))).exp()
    for cause in range(1, head.num_causes + 1):
        for t in GRID:
            total = total + (-head.nll(outputs, _targets(head, t, cause))).exp()
    torch.testing.assert_close(total, torch.ones(1).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_density_integrates_to_what_survival_loses(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 1, 8)
    curve = head.survival_curve(outputs, CUTS)[0].tolist()
    starts = np.concatenate(([0.0], GRID[:-1]))
    for k, (lo, hi) in enumerate(zip(starts, GRID, strict=True)):
        # PC-Hazard's density counts time in widths of the interval.
        unit = hi - lo if name == "pc_hazard" else 1.0

        def density(t: float, unit: float = unit) -> float:
            return float((-head.nll(outputs, _targets(head, t, 1))).exp()) / unit

        lost = (1.0 if k == 0 else curve[k - 1]) - curve[k]
        inner = [max(lo, 1e-12), *(x for x in (1e-8, 1e-4, 1e-2, 0.3) if x > lo), hi]
        area = sum(quad(density, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairwise(inner))
        assert area == pytest.approx(lost, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_extreme_outputs_and_few_events_give_finite_losses(name: str, dtype: torch.dtype) -> None:
    head = HEADS[name]
    width = head.num_outputs(len(GRID))
    signs = np.random.default_rng(9).choice([-1e3, 1e3], (24, width))
    signs[:2] = [[-1e3], [1e3]]
    months, _ = _outcomes(head, 24, 9)
    months[:4] = [1e-3, 60.0, 60.1, 600.0]
    for size in (1, 2, 24):
        for event in (0, 1):
            outputs = torch.from_numpy(signs[:size]).to(dtype).requires_grad_()
            loss = head.nll(outputs, _targets(head, months[:size], np.full(size, event)))
            assert loss.shape == (size,) and loss.dtype == dtype
            assert torch.isfinite(loss).all()
            loss.sum().backward()
            assert torch.isfinite(outputs.grad).all()
            for predicted in (
                head.survival_at(outputs.detach(), CUTS, CUTS),
                head.restricted_mean_months(outputs.detach(), CUTS),
            ):
                assert torch.isfinite(predicted).all() and predicted.dtype == dtype


@pytest.mark.parametrize("name", SUMS)
def test_per_patient_gradients_by_vmap_are_the_rows_of_the_batch(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 30, 10)
    targets = _targets(head, *_outcomes(head, 30, 10))

    def one(row: Tensor, own: dict[str, Tensor]) -> Tensor:
        return head.nll(row[None], {key: value[None] for key, value in own.items()}).sum()

    each = vmap(grad(one))(outputs, targets)
    whole = grad(lambda rows: head.nll(rows, targets).sum())(outputs)
    torch.testing.assert_close(each, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_differences(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 5, 11).requires_grad_()
    targets = _targets(head, *_outcomes(head, 5, 11))
    assert torch.autograd.gradcheck(lambda rows: head.nll(rows, targets), (outputs,))


@pytest.mark.parametrize("name", ALL)
def test_the_start_describes_the_given_patient(name: str) -> None:
    head = HEADS[name]
    hazards = [0.02, 0.05, 0.03, 0.1, 0.2, 0.3]
    outputs = torch.tensor([head.start_outputs(hazards, GRID.tolist())]).double()
    assert outputs.shape == (1, head.num_outputs(6))
    curve = head.survival_curve(outputs, CUTS)[0].numpy()
    expected = np.cumprod(1 - np.array(hazards))
    compared = slice(-1, None) if name.startswith("aft") else slice(None)
    np.testing.assert_allclose(curve[compared], expected[compared], rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_hazards_to_start_from_may_be_zero_but_not_negative(name: str) -> None:
    head = HEADS[name]
    for hazards in ([0.0] * 6, [1.0] * 6, [0.1, 0, 0.2, 0, 0, 1.0]):
        start = head.start_outputs(hazards, GRID.tolist())
        assert len(start) == head.num_outputs(6) and np.isfinite(start).all()
    for hazards in ([0.1] * 5 + [-0.1], [0.1] * 5, [0.1] * 5 + [np.nan]):
        with pytest.raises(ConfigError, match=r"not one number in .* for each of 6 intervals"):
            head.start_outputs(hazards, GRID.tolist())


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("events", ["some", "all at one hospital", "one", "none"])
def test_gradients_of_hospitals_weighed_by_patients_are_the_pooled_one(
    name: str, events: str
) -> None:
    head = HEADS[name]
    months, event = _outcomes(head, 40, 14)
    if events != "some":
        event[{"all at one hospital": 10, "one": 1, "none": 0}[events] :] = 0
    event[0] = events != "none"
    weight = torch.zeros(3, head.num_outputs(len(GRID)), dtype=torch.float64)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(2)).double()

    def gradient(part: slice) -> Tensor:
        own = _targets(head, months[part], event[part])
        return grad(lambda w: head.nll(x[part] @ w, own).mean())(weight)

    parts = [slice(0, 10), slice(10, 11), slice(11, 40)]
    added = sum(gradient(part) * (part.stop - part.start) for part in parts) / 40
    whole = gradient(slice(0, 40))
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(added, whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_raised(name: str) -> None:
    head = HEADS[name]
    outputs = _outputs(head, 4, 12).bfloat16()
    targets = _targets(head, *_outcomes(head, 4, 12))
    assert head.nll(outputs, targets).dtype == torch.float32
    assert head.survival_at(outputs, CUTS, CUTS).dtype == torch.float32
    torch.testing.assert_close(head.nll(outputs, targets), head.nll(outputs.float(), targets))


@pytest.mark.parametrize("name", ALL)
def test_the_objective_is_the_loss_of_any_head(name: str) -> None:
    head = HEADS[name]
    model = build("tabular", {"num_tabular": 3, "num_intervals": len(GRID), "head": name})
    targets = _targets(head, *_outcomes(head, 7, 13))
    batch = {"tabular": torch.randn(7, 3), "missing": torch.zeros(7, 3), **targets}
    loss = prognosis_objective(model.eval(), batch, head)
    outputs = model(None, None, batch["tabular"], batch["missing"])
    torch.testing.assert_close(loss, head.nll(outputs, targets))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("months", "event", "sentence"),
    [
        ([0.0, 1.0], [1, 0], "not positive and finite"),
        ([np.inf, 1.0], [1, 0], "not positive and finite"),
        ([1.0, 1.0], [-1, 0], "neither 0 nor 1|no whole number from 0 to 2"),
        ([1.0, 1.0], [0.5, 0], "neither 0 nor 1|no whole number from 0 to 2"),
        ([1.0, 1.0], [1], "shapes"),
    ],
)
def test_impossible_outcomes_are_refused(
    name: str, months: list[float], event: list[int], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        HEADS[name].targets(np.array(months), np.array(event), GRID)


@pytest.mark.parametrize("name", ALL)
def test_a_grid_that_does_not_rise_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="does not rise from 0"):
        HEADS[name].targets(np.array([1.0]), np.array([1]), np.array([6.0, 6.0]))


def test_heads_are_found_by_their_name() -> None:
    assert all(head.name == name for name, head in HEADS.items())
    assert choose_head("mtlr") is HEADS["mtlr"]
    with pytest.raises(ConfigError, match=r"Head 'cox' is unknown; choose one of aft_log_logistic"):
        choose_head("cox")


def test_only_sums_over_patients_may_be_private() -> None:
    assert sorted(set(ALL) - set(SUMS)) == ["deephit"]
    for name in SUMS:
        require_decomposable(HEADS[name])
    with pytest.raises(ConfigError, match="'deephit' compares patients with each other"):
        require_decomposable(HEADS["deephit"])
