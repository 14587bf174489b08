"""Imputation from sums: the pooled equations, the posterior, Rubin's rules by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from client.imputation import Gaps, Step, complete, equations
from protocol.errors import ConfigError, DataError, PayloadError, TrainingError
from protocol.stats import merge_all
from protocol.stats.normal_equations import NormalEquations
from strategies.imputation import Drawn, chain, draw, pool, solve

NAMES = ("a", "b", "c")


def hospitals(seed: int, sizes: Sequence[int] = (80, 50, 70)) -> list[Gaps]:
    """b and c depend on a and on the event; b has gaps in a third, c none at the first hospital."""
    rng = np.random.default_rng(seed)
    parts = []
    for index, size in enumerate(sizes):
        a = rng.normal(size=size)
        event = rng.integers(0, 2, size).astype(float)
        b = 0.5 + a + 0.4 * event + rng.normal(0, 0.5, size)
        c = b - 0.5 * a + rng.normal(0, 0.3, size)
        x = np.column_stack([a, b, c])
        # Missing the more often the higher a is: at random given a, not completely.
        x[rng.uniform(size=size) < 1 / (1 + np.exp(-1.5 * a)), 1] = np.nan
        if index == 1:
            x[:, 2] = np.nan
        parts.append(Gaps(NAMES, x, ("event",), event[:, None]))
    return parts


def replay(parts: Sequence[Gaps], steps: Sequence[Drawn], seed: int) -> list[np.ndarray]:
    done = [Step(s.target, s.coefficients, s.sigma) for s in steps]
    return [
        complete(part, done, np.random.default_rng([seed, index]))
        for index, part in enumerate(parts)
    ]


def federated(parts: Sequence[Gaps], seed: int, iterations: int = 4) -> tuple[Drawn, ...]:
    def ask(steps: Sequence[Drawn], target: str) -> NormalEquations:
        filled = replay(parts, steps, seed)
        return merge_all([equations(p, x, target) for p, x in zip(parts, filled, strict=True)])

    return chain(ask, ("c", "b"), iterations, np.random.default_rng(seed))


def test_the_equations_are_those_of_all_patients_in_one_table() -> None:
    parts = hospitals(1)
    steps = federated(parts, 1)
    filled = replay(parts, steps, 1)
    together = Gaps(
        NAMES,
        np.concatenate([part.x for part in parts]),
        ("event",),
        np.concatenate([part.auxiliary for part in parts]),
    )
    for target in ("b", "c"):
        total = merge_all([equations(p, x, target) for p, x in zip(parts, filled, strict=True)])
        pooled = equations(together, np.concatenate(filled), target)
        np.testing.assert_allclose(total.xx, pooled.xx, rtol=0, atol=1e-9)
        np.testing.assert_allclose(total.xy, pooled.xy, rtol=0, atol=1e-9)
        assert total.n == pooled.n == int((~np.isnan(together.x[:, NAMES.index(target)])).sum())
        # The same least squares, whichever way it is solved, but for mice's ridge of 1e-5.
        known = ~np.isnan(together.x[:, NAMES.index(target)])
        x = np.concatenate(filled)
        columns = [k for k in range(3) if NAMES[k] != target]
        design = np.column_stack([np.ones(len(x)), x[:, columns], together.auxiliary])[known]
        direct = np.linalg.lstsq(design, x[known, NAMES.index(target)], rcond=None)[0]
        np.testing.assert_allclose(solve(total)[0], direct, atol=2e-4)


def test_a_chain_on_one_table_is_the_chain_on_its_hospitals() -> None:
    parts = hospitals(2)
    steps = federated(parts, 2)
    noise = {}

    def pooled_ask(done: Sequence[Drawn], target: str) -> NormalEquations:
        # One table, the hospitals' noise in the order of its rows.
        filled = replay(parts, done, 2)
        noise["rows"] = np.concatenate(filled)
        together = Gaps(
            NAMES,
            np.concatenate([part.x for part in parts]),
            ("event",),
            np.concatenate([part.auxiliary for part in parts]),
        )
        return equations(together, noise["rows"], target)

    pooled = chain(pooled_ask, ("c", "b"), 4, np.random.default_rng(2))
    for ours, theirs in zip(steps, pooled, strict=True):
        np.testing.assert_allclose(ours.coefficients, theirs.coefficients, atol=1e-9)
        assert ours.sigma == pytest.approx(theirs.sigma, abs=1e-9)


def test_what_is_missing_at_random_is_recovered_where_complete_cases_are_not() -> None:
    truth = 0.5 + 0.4 * 0.5
    imputed, complete_cases = [], []
    for seed in range(10):
        parts = hospitals(seed, (400, 300, 300))
        filled = np.concatenate(replay(parts, federated(parts, seed, 3), seed))
        known = np.concatenate([part.x for part in parts])[:, 1]
        imputed.append(filled[:, 1].mean())
        complete_cases.append(np.nanmean(known))
    assert abs(np.mean(imputed) - truth) < 0.04
    assert abs(np.mean(complete_cases) - truth) > 0.3


def test_known_values_stay_and_a_replay_is_the_same() -> None:
    parts = hospitals(3)
    steps = federated(parts, 3)
    first, second = replay(parts, steps, 3), replay(parts, steps, 3)
    for part, one, two in zip(parts, first, second, strict=True):
        known = ~np.isnan(part.x)
        np.testing.assert_array_equal(one[known], part.x[known])
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()


def test_a_draw_has_the_posterior_of_the_regression() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    sums = NormalEquations.of(("1", "u", "v"), "y", x, x @ [1, 2, -1] + rng.normal(size=60))
    b, inverse, residual = solve(sums)
    drawn = [draw(sums, rng) for _ in range(4000)]
    coefficients = np.array([d.coefficients for d in drawn])
    np.testing.assert_allclose(coefficients.mean(axis=0), b, atol=0.01)
    # A t distribution with 57 degrees: variance 57 / 55 of sigma^2 (X'X)^-1.
    expected = inverse * residual / 55
    np.testing.assert_allclose(np.cov(coefficients.T), expected, atol=0.002)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_sums_add_whatever_the_order_and_nobody_adds_nothing(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    names = tuple(f"x{k}" for k in range(width))
    parts = [
        NormalEquations.of(names, "y", rng.integers(-9, 9, (n, width)), rng.integers(-9, 9, n))
        for n in (3, 5, 2)
    ]
    a, b, c = parts
    assert (a + b) + c == a + (b + c) == c + b + a
    assert a + NormalEquations.empty(names, "y") == a
    assert NormalEquations.from_dict(a.to_dict()) == a


def test_few_patients_are_withheld_and_nobody_is_told() -> None:
    one = NormalEquations.of(("1", "u"), "y", np.ones((4, 2)), np.ones(4))
    assert one.suppressed(5).withheld == 1 and one.suppressed(5).n == 0
    assert one.suppressed(1) == one
    assert NormalEquations.empty(("1",), "y").suppressed(5).withheld == 0


def test_rubins_rules_by_hand() -> None:
    # Three fits 1, 2, 3 with error 1: W = 1, B = 1, T = 1 + 4/3, lambda = (4/3) / (7/3) = 4/7,
    # degrees = 2 / (4/7)^2 = 6.125.
    found = pool([[1.0], [2.0], [3.0]], [[1.0], [1.0], [1.0]])
    assert found.beta == pytest.approx([2.0]) and found.se == pytest.approx([np.sqrt(7 / 3)])
    assert found.missing_information == pytest.approx([4 / 7])
    assert found.degrees == pytest.approx([6.125])
    half = stats.t.ppf(0.975, 6.125) * np.sqrt(7 / 3)
    assert found.upper - found.beta == pytest.approx([half])
    assert found.p == pytest.approx([2 * stats.t.sf(2 / np.sqrt(7 / 3), 6.125)])


def test_without_gaps_imputation_changes_nothing() -> None:
    found = pool([[0.5], [0.5]], [[0.1], [0.1]])
    assert found.se == pytest.approx([0.1]) and np.isinf(found.degrees[0])
    assert found.p == pytest.approx([2 * stats.norm.sf(5)], rel=1e-4)


def test_what_cannot_be_imputed_is_said() -> None:
    few = NormalEquations.of(("1", "u"), "y", np.ones((2, 2)), np.ones(2))
    with pytest.raises(TrainingError, match="'y' is known in too few patients"):
        draw(few, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="give both for at least two imputations"):
        pool([[1.0]], [[1.0]])
    with pytest.raises(ConfigError, match="0 iterations of the imputation"):
        chain(lambda steps, target: few, ("y",), 0, np.random.default_rng(0))
    with pytest.raises(DataError, match="A step of the imputation is not complete"):
        Step.from_dict({"target": "b"})
    with pytest.raises(DataError, match="1 coefficients for 4 predictors"):
        complete(hospitals(0)[0], [Step("b", (1.0,), 1.0)], np.random.default_rng(0))
    with pytest.raises(PayloadError, match="not finite; fill it in first"):
        NormalEquations.of(("1",), "y", [[np.nan]], [1.0])
