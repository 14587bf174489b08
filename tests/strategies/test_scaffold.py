"""SCAFFOLD on quadratics, where every answer is known in closed form.

Hospital i's loss is ``a_i/2 (x - b_i)^2`` in each coordinate, so a step of rate eta shrinks the
distance to ``b_i`` by ``1 - eta a_i``.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from protocol.arrays import Arrays
from protocol.control import control_change, moved, no_control
from protocol.errors import PayloadError
from strategies import RunningMean, build
from strategies.scaffold import as_state, control_of
from strategies.turnout import EVERYBODY, Turnout

A = np.array([[1.0, 3.0], [4.0, 1.0], [2.0, 8.0]])
B = np.array([[-3.0, 2.0], [5.0, 0.0], [1.0, -4.0]])
WEIGHTS = np.array([10.0, 30.0, 20.0])
RATE = 0.05
START = {"x": np.array([10.0, -10.0])}


def local(x: Arrays, site: int, steps: int, correction: Arrays) -> Arrays:
    y = x["x"]
    for _ in range(steps):
        y = y - RATE * (A[site] * (y - B[site]) + correction["x"])
    return {"x": y.astype(x["x"].dtype)}


class Consortium:
    """Rounds of one strategy over some of the hospitals, variates and all."""

    def __init__(self, name: str, sites: Sequence[int], steps: int, **options: float) -> None:
        self.rule = build(name, options)
        self.sites, self.steps = sites, steps
        self.x, self.state = dict(START), self.rule.init(START)
        self.own = {site: no_control(START) for site in range(len(A))}
        self.heard: dict[str, float] = {}

    def round(self, present: Sequence[int] | None = None) -> None:
        mean, control = RunningMean(), control_of(self.state)
        now = {str(site): WEIGHTS[site] for site in (self.sites if present is None else present)}
        for site in self.sites if present is None else present:
            shift = {k: c - self.own[site][k] for k, c in control.items()} or no_control(START)
            y = local(self.x, site, self.steps, shift)
            change = control_change(self.x, y, control, self.steps * RATE, "it")
            self.own[site] = moved(self.own[site], change) if control else self.own[site]
            mean.add(y | as_state(change), WEIGHTS[site])
        turnout = Turnout.of(self.heard, now)
        self.heard |= now
        self.x, self.state = self.rule.step(self.x, mean.take(), self.state, turnout)


def weighted(values: np.ndarray, sites: Sequence[int]) -> np.ndarray:
    return np.average(values[list(sites)], axis=0, weights=WEIGHTS[list(sites)])


def optimum(sites: Sequence[int]) -> np.ndarray:
    return weighted(A * B, sites) / weighted(A, sites)


def fedavg_point(sites: Sequence[int], steps: int) -> np.ndarray:
    """Where x = sum_i p_i (b_i + (1 - eta a_i)^K (x - b_i)) holds."""
    shrink = 1 - (1 - RATE * A) ** steps
    return weighted(shrink * B, sites) / weighted(shrink, sites)


def test_many_local_steps_lead_fedavg_astray_and_scaffold_to_the_optimum() -> None:
    sites, steps = (0, 1, 2), 20
    averaged, corrected = Consortium("fedavg", sites, steps), Consortium("scaffold", sites, steps)
    for _ in range(200):
        averaged.round()
        corrected.round()
    wrong, right = fedavg_point(sites, steps), optimum(sites)
    np.testing.assert_allclose(averaged.x["x"], wrong, rtol=1e-12)
    np.testing.assert_allclose(corrected.x["x"], right, rtol=1e-12)
    assert np.abs(wrong - right).max() > 0.5
    gradients = A * (right - B)
    for site in sites:
        np.testing.assert_allclose(corrected.own[site]["x"], gradients[site], rtol=1e-9)


def test_a_hospital_that_misses_rounds_does_not_move_the_optimum() -> None:
    corrected = Consortium("scaffold", (0, 1, 2), 10)
    for number in range(600):
        # The third is heard late, and each is away now and then.
        here = [s for s in range(3) if number % (s + 2) and (s < 2 or number > 5)]
        if not here:
            continue
        corrected.round(here)
        heard = [int(site) for site in corrected.heard]
        mean = weighted(np.stack([corrected.own[s]["x"] for s in range(3)]), heard)
        np.testing.assert_allclose(control_of(corrected.state)["x"], mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(corrected.x["x"], optimum((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_hospital_is_fedavg_to_the_bit(dtype: type) -> None:
    # The steps are plain numpy here; tests/sim runs the hospitals' own.
    one, plain = Consortium("scaffold", (1,), 7), Consortium("fedavg", (1,), 7)
    one.x = plain.x = {"x": START["x"].astype(dtype)}
    one.state, one.own = one.rule.init(one.x), {1: no_control(one.x)}
    for _ in range(30):
        one.round()
        plain.round()
        assert one.x["x"].dtype == dtype
        assert one.x["x"].tobytes() == plain.x["x"].tobytes()


def test_equal_hospitals_are_fedavg_to_the_bit() -> None:
    def replies(rule: str) -> np.ndarray:
        strategy = build(rule, {})
        x, state, own = dict(START), strategy.init(START), no_control(START)
        for _ in range(20):
            mean, control = RunningMean(), control_of(state) or no_control(START)
            y = local(x, 0, 9, {"x": control["x"] - own["x"]})
            change = control_change(x, y, control, 9 * RATE, "it")
            for weight in WEIGHTS:
                mean.add(y | as_state(change), weight)
            own = moved(own, change) if rule == "scaffold" else own
            x, state = strategy.step(x, mean.take(), state)
            x = {"x": x["x"]}
        return x["x"]

    assert replies("scaffold").tobytes() == replies("fedavg").tobytes()


def test_one_local_step_from_zero_is_gradient_descent_on_the_mean() -> None:
    corrected, x = Consortium("scaffold", (0, 1, 2), 1), START["x"]
    corrected.round()
    np.testing.assert_allclose(
        corrected.x["x"], x - RATE * weighted(A * (x - B), (0, 1, 2)), rtol=1e-14
    )


def test_two_rounds_by_hand() -> None:
    # f1 = x^2/2, f2 = (x - 4)^2, x = 2, eta = .5, K = 1, equal weights, eta_g = .5.
    # Round 1: y1 = 1, y2 = 2 - .5(-4) = 4; c1+ = 2, c2+ = -4. x = 2 + .5(2.5 - 2) = 2.25, c = -1.
    # Round 2: y1 = 2.25 - .5(2.25 - 2 - 1) = 2.625, y2 = 2.25 - .5(-3.5 + 4 - 1) = 2.5;
    # c1+ = 2.25, c2+ = -3.5. x = 2.25 + .5(2.5625 - 2.25) = 2.40625, c = -.625.
    strategy = build("scaffold", {"learning_rate": 0.5})
    gradients = (lambda x: x, lambda x: 2 * (x - 4))
    x, own = {"x": np.array([2.0])}, [no_control({"x": np.zeros(1)}) for _ in range(2)]
    state = strategy.init(x)
    seen = []
    for _ in range(2):
        mean, control = RunningMean(), control_of(state)
        for site, gradient in enumerate(gradients):
            y = {"x": x["x"] - 0.5 * (gradient(x["x"]) + control["x"] - own[site]["x"])}
            change = control_change(x, y, control, 0.5, "it")
            own[site] = moved(own[site], change)
            mean.add(y | as_state(change), 1.0)
        x, state = strategy.step(x, mean.take(), state)
        seen.append((x["x"][0], control_of(state)["x"][0]))
    assert seen == [(2.25, -1.0), (2.40625, -0.625)]
    assert [variate["x"][0] for variate in own] == [2.25, -3.5]


def test_other_strategies_send_no_control_variate() -> None:
    for name in ("fedavg", "fedprox", "fedavgm", "fedadam"):
        assert control_of(build(name, {}).init(START)) == {}


def test_counters_have_no_control_variate() -> None:
    state = build("scaffold", {}).init({"w": np.ones(2, np.float32), "n": np.array(3)})
    assert {key: array.dtype.name for key, array in state.items()} == {"control/w": "float32"}


@pytest.mark.parametrize("rate_sum", [1e-300, 1e-40, 1e-15])
def test_a_rate_next_to_nothing_is_refused(rate_sum: float) -> None:
    x, y = {"x": np.float32([1.0])}, {"x": np.float32([2.0])}
    with pytest.raises(PayloadError, match=r"^The control variate of A: array 'x' holds"):
        control_change(x, y, no_control(x), rate_sum, "The control variate of A")


def test_the_turnout_is_of_those_heard_so_far() -> None:
    assert Turnout.of({}, {"A": 3.0, "B": 1.0}) == Turnout(share=1.0, kept=0.0)
    assert Turnout.of({"A": 3.0, "B": 1.0}, {"B": 1.0}) == Turnout(share=0.25, kept=1.0)
    assert Turnout.of({"A": 3.0}, {"B": 1.0, "C": 0.0}) == Turnout(share=0.25, kept=0.75)
    assert Turnout.of({"A": 3.0}, {"A": 3.0}) == EVERYBODY
