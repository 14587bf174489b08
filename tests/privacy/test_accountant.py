"""Epsilon beside dp-accounting, by integrals and by hand; never below, and never falling."""

import importlib
import itertools
import logging
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.special import ndtr

from privacy import accountant
from privacy.accountant import ORDERS, Spend, epsilon, renyi_epsilon, renyi_orders
from protocol.errors import PrivacyError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NUM_SCHEDULES = 12


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark's schedules and comparisons; what it runs 500 times runs here 25 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("privacy_accounting")


@pytest.mark.parametrize("index", range(NUM_SCHEDULES))
def test_random_schedules_agree_with_dp_accounting(benchmark: ModuleType, index: int) -> None:
    rng = np.random.default_rng([2, index])
    history, delta = benchmark.schedule(rng)
    with pytest.MonkeyPatch.context() as patch:
        # dp-accounting warns through the log of every composition that it makes coarser.
        patch.setattr(logging.root.manager, "disable", logging.WARNING)
        found, ratio = benchmark.over_pld(history, delta)
        assert found > 0.01
        assert 1 <= ratio <= 1.01
        assert benchmark.divergences_differ(history) < 1e-6
    if index % 5 == 0:
        assert benchmark.falls(history, delta, rng) == 0
    assert found <= renyi_epsilon(history, delta)


# Spec of the project's threat model: Opacus's PRV and RDP, dp-accounting's PLD, as measured with
# Opacus 1.6.0 and dp-accounting 0.6.0.
@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "delta", "pld", "rdp"),
    [
        (1.0, 0.08, 600, 5e-4, 11.174, 12.524),
        (2.0, 0.08, 600, 5e-4, 3.614, 4.063),
        (4.0, 0.16, 300, 1e-3, 2.069, 2.359),
        (0.3, 0.1, 300, 1e-3, 173.23, 193.19),
    ],
)
def test_golden_figures(
    sigma: float, rate: float, steps: int, delta: float, pld: float, rdp: float
) -> None:
    history = [Spend(sigma, rate, steps)]
    assert pld - 0.0005 <= epsilon(history, delta) <= 1.01 * pld
    assert renyi_epsilon(history, delta) == pytest.approx(rdp, abs=5e-3)


def test_the_central_limit_lies_below_and_is_not_used_as_a_bound() -> None:
    # GDP gives 11.112 for the first of the golden figures (the truth is 11.174).
    history = accountant._merge([Spend(1.0, 0.08, 600)])
    limit = accountant._gaussian_epsilon(accountant._central_limit(history), 5e-4)
    assert limit == pytest.approx(11.112, abs=1e-3)
    assert limit < 11.174 < epsilon([Spend(1.0, 0.08, 600)], 5e-4)


def divergence(sigma: float, rate: float, order: float) -> float:
    """Renyi divergence by its definition: log of the mean of the likelihood ratio's power."""

    def integrand(x: float) -> float:
        ratio = math.log((1 - rate) + rate * math.exp((2 * x - 1) / (2 * sigma**2)))
        return math.exp(order * ratio - x * x / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    parts = np.linspace(-12 * sigma, order + 12 * sigma, 30)
    pieces = [
        integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(parts)
    ]
    return math.log(math.fsum(pieces)) / (order - 1)


@pytest.mark.parametrize(("sigma", "rate"), [(0.8, 0.1), (2.0, 0.01), (5.0, 0.4)])
def test_renyi_divergences_are_the_integrals(sigma: float, rate: float) -> None:
    found = dict(zip(ORDERS, renyi_orders([Spend(sigma, rate, 1)]), strict=True))
    for order in (1.1, 1.5, 2.3, 4.0, 7.7, 16.0):
        # The logarithm of nearly 1 keeps 13 digits of 1.
        expected = pytest.approx(divergence(sigma, rate, order), rel=1e-6, abs=1e-12)
        assert found[order] == expected


def delta_of_gaussian(mu: float, eps: float) -> float:
    return float(ndtr(mu / 2 - eps / mu) - math.exp(eps) * ndtr(-mu / 2 - eps / mu))


@given(
    st.lists(st.tuples(st.floats(0.5, 50), st.integers(1, 9)), min_size=1, max_size=4),
    st.floats(1e-8, 0.3),
)
@settings(max_examples=60)
def test_releases_of_everybody_are_one_gaussian_release(
    releases: list[tuple[float, int]], delta: float
) -> None:
    mu = math.sqrt(sum(n / s**2 for s, n in releases))
    found = epsilon([Spend(s, 1.0, n) for s, n in releases], delta)
    if found == 0:
        assert delta_of_gaussian(mu, 0.0) <= delta * (1 + 1e-9)
    else:
        assert delta_of_gaussian(mu, found) <= delta * (1 + 1e-6)
        assert delta_of_gaussian(mu, found * (1 - 1e-7)) >= delta * (1 - 1e-6)


def test_one_release_of_everybody_by_the_tables() -> None:
    # Balle and Wang 2018: sensitivity 1, epsilon 1, delta 1e-5 needs sigma 3.7306.
    assert epsilon([Spend(3.7306, 1.0, 1)], 1e-5) == pytest.approx(1.0, abs=2e-5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.8, 1.3, 4.0, 60.0]),
            st.sampled_from([0.003, 0.1, 0.45, 1.0]),
            st.sampled_from([1, 2, 7, 60]),
        ),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from([1e-6, 1e-4, 1e-3]),
)
@settings(max_examples=8)
def test_epsilon_never_falls(history: list[tuple[float, float, int]], delta: float) -> None:
    spends = [Spend(*values) for values in history]
    seen = [epsilon(spends[:n], delta) for n in range(len(spends) + 1)]
    assert seen[0] == 0 and seen == sorted(seen)


def test_epsilon_does_not_fall_where_the_mesh_changes() -> None:
    # One step more from 60 to 70: the number of parts passes 64.
    seen = [epsilon([Spend(1.1, 0.05, n), Spend(9.0, 1.0, 2)], 1e-5) for n in range(60, 70)]
    assert seen == sorted(seen)


def test_order_and_packaging_do_not_matter() -> None:
    spends = [Spend(1.2, 0.1, 5), Spend(6.0, 1.0, 2), Spend(1.2, 0.1, 7), Spend(3.0, 1.0, 1)]
    merged = [Spend(3.0, 1.0, 1), Spend(6.0, 1.0, 1), Spend(1.2, 0.1, 12), Spend(6.0, 1.0, 1)]
    assert epsilon(spends, 1e-5) == epsilon(spends[::-1], 1e-5) == epsilon(merged, 1e-5)


def test_less_noise_more_steps_larger_samples_smaller_delta_cost_more() -> None:
    base = epsilon([Spend(2.0, 0.1, 50)], 1e-4)
    for dearer, delta in (
        (Spend(1.9, 0.1, 50), 1e-4),
        (Spend(2.0, 0.11, 50), 1e-4),
        (Spend(2.0, 0.1, 56), 1e-4),
        (Spend(2.0, 0.1, 50), 5e-5),
        (Spend(2.0, 1.0, 50), 1e-4),
    ):
        assert epsilon([dearer], delta) > base


@pytest.mark.parametrize(
    ("spend", "delta"),
    [
        (Spend(0.05, 0.1, 10), 1e-5),  # next to no noise
        (Spend(1.0, 0.1, 10), 1e-12),  # beyond the digits of the PRVs
        (Spend(0.5, 0.5, 5000), 1e-5),  # epsilon in the thousands
    ],
)
def test_where_the_prvs_end_renyi_takes_over(spend: Spend, delta: float) -> None:
    found = epsilon([spend], delta)
    assert found == renyi_epsilon([spend], delta) and math.isfinite(found)
    assert epsilon([spend, Spend(5.0, 0.1, 1)], delta) >= found


def test_prvs_that_cannot_be_composed_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.accountants.analysis import prv

    def no_memory(*given: object) -> None:
        raise MemoryError

    history = [Spend(1.7, 0.07, 31)]
    accountant._epsilon.cache_clear()
    monkeypatch.setattr(prv, "compose_heterogeneous", no_memory)
    assert epsilon(history, 1e-5) == renyi_epsilon(history, 1e-5)
    accountant._epsilon.cache_clear()


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"),
    [
        (0.0, 0.1, 1),
        (-1.0, 0.1, 1),
        (math.nan, 0.1, 1),
        (math.inf, 0.1, 1),
        (1.0, 0.0, 1),
        (1.0, 1.01, 1),
        (1.0, math.nan, 1),
        (1.0, 0.1, 0),
        (1.0, 0.1, -5),
        (1.0, 0.1, True),
    ],
)
def test_what_cannot_be_accounted_for(sigma: float, rate: float, steps: int) -> None:
    with pytest.raises(PrivacyError, match="cannot be accounted for"):
        Spend(sigma, rate, steps)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_delta_is_a_small_probability(delta: float) -> None:
    with pytest.raises(PrivacyError, match=r"is not in \(0, 1\)"):
        epsilon([], delta)
