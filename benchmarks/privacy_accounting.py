"""Epsilon of random histories, beside what dp-accounting makes of the same.

    python benchmarks/privacy_accounting.py [--schedules 500] [--seed 1]

A schedule is what one hospital's ledger may hold: one to three studies with noise, rate and steps
of their own, each with rounds that were charged again after a restart, noised sums in between. Of
each is asked:

* ``epsilon`` over dp-accounting's privacy loss distribution (PLD, connect-the-dots, pessimistic, so
  itself not below the truth): never below 1, at most 1.01.
* the Renyi divergences at whole orders, beside ``dp_accounting.rdp``. (At fractional orders that
  library gives an upper bound, up to several times the divergence; the tests integrate instead.)
* epsilon after a part of the schedule, all of it, and something next to nothing more: it never
  falls.
"""

import argparse
import logging
import math
from collections.abc import Iterator

import numpy as np
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant

from privacy.accountant import ORDERS, Spend, epsilon, renyi_orders

__all__ = ["divergences_differ", "falls", "over_pld", "schedule"]

# Orders that are whole, every third of them.
WHOLE = [i for i, order in enumerate(ORDERS) if order.is_integer()][::3]
WEAK = (Spend(1e4, 1.0, 1), Spend(50.0, 0.001, 1), Spend(1e3, 0.3, 2))


def schedule(rng: np.random.Generator) -> tuple[list[Spend], float]:
    """Return the spends of a ledger in their order, and a delta."""
    studies = [_study(rng) for _ in range(int(rng.integers(1, 4)))]
    # Studies run side by side: their rounds are shuffled into each other.
    order = np.repeat(np.arange(len(studies)), [len(study) for study in studies])
    rng.shuffle(order)
    waiting = [iter(study) for study in studies]
    return [next(waiting[index]) for index in order], float(10 ** rng.uniform(-6, -2.5))


def _study(rng: np.random.Generator) -> list[Spend]:
    sigma = round(float(np.exp(rng.uniform(np.log(0.7), np.log(10)))), 2)
    rate = round(float(np.exp(rng.uniform(np.log(0.005), np.log(0.5)))), 3)
    steps, rounds = int(rng.integers(1, 15)), int(rng.integers(3, 50))
    statistics = round(float(rng.uniform(5, 60)), 1)
    spends = []
    for _ in range(rounds):
        # A round that a crash cut short is charged again, sometimes twice.
        spends += [Spend(sigma, rate, steps)] * (1 + int(rng.binomial(2, 0.05)))
        if rng.random() < 0.1:
            spends.append(Spend(statistics, 1.0, int(rng.integers(1, 4))))
    return spends


def _kinds(history: list[Spend]) -> Iterator[tuple[float, float, int]]:
    kinds = sorted({(s.noise_multiplier, s.sampling_rate) for s in history})
    for sigma, rate in kinds:
        same = [s for s in history if (s.noise_multiplier, s.sampling_rate) == (sigma, rate)]
        yield sigma, rate, sum(s.num_steps for s in same)


def over_pld(history: list[Spend], delta: float) -> tuple[float, float]:
    """Return our epsilon, and its ratio to that of the privacy loss distribution."""
    found = epsilon(history, delta)
    # As fine as matters: a two-thousandth of the result.
    interval = min(max(found / 2000, 1e-6), 1e-3)
    composed = None
    for sigma, rate, steps in _kinds(history):
        one = from_gaussian_mechanism(
            sigma, sampling_prob=rate, value_discretization_interval=interval
        ).self_compose(steps)
        composed = one if composed is None else composed.compose(one)
    assert composed is not None
    return found, found / composed.get_epsilon_for_delta(delta)


def divergences_differ(history: list[Spend]) -> float:
    """Return the largest relative difference of the Renyi divergences from dp-accounting's."""
    accountant = RdpAccountant([ORDERS[index] for index in WHOLE])
    for sigma, rate, steps in _kinds(history):
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
        accountant.compose(SelfComposedDpEvent(event, steps))
    ours, theirs = renyi_orders(history)[WHOLE], accountant._rdp
    assert np.isfinite(ours).all()
    return float(np.max(np.abs(ours / theirs - 1)))


def falls(history: list[Spend], delta: float, rng: np.random.Generator) -> float:
    """Return the largest fall of epsilon as the history is appended to; 0 if there is none."""
    part = history[: int(rng.integers(1, len(history) + 1))]
    more = [*history, WEAK[int(rng.integers(len(WEAK)))]]
    seen = [epsilon(each, delta) for each in (part, history, more)]
    return float(max(0.0, *(-np.diff(seen))))


def main() -> None:
    """Print the figures over all schedules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    ratios, values, differences, fell = [], [], [], []
    for index in range(options.schedules):
        rng = np.random.default_rng([options.seed, index])
        history, delta = schedule(rng)
        value, ratio = over_pld(history, delta)
        values.append(value)
        ratios.append(ratio)
        differences.append(divergences_differ(history))
        fell.append(falls(history, delta, rng))
        if (index + 1) % 25 == 0:
            print(
                f"{index + 1} schedules, over PLD {min(ratios):.5f} to {max(ratios):.5f}",
                flush=True,
            )
    print(f"epsilon from {min(values):.3f} to {max(values):.3f}, median {np.median(values):.3f}")
    print(f"over PLD: smallest {min(ratios):.5f}, median {np.median(ratios):.5f}, ", end="")
    print(f"largest {max(ratios):.5f}; below 1 in {sum(r < 1 for r in ratios)}")
    print(f"Renyi divergences: largest relative difference {max(differences):.2e}")
    print(f"falls: {sum(f > 0 for f in fell)} of {len(fell)}, the largest {max(fell):.2e}")
    if min(ratios) < 1 or max(ratios) > 1.01 or max(fell) > 0 or not math.isfinite(max(values)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
