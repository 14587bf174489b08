"""Harrell's C: hand-worked ties, two reference packages, the bootstrap."""

import lifelines.utils
import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from protocol.errors import PayloadError
from protocol.stats import PairCounts, merge_all


def cohort(num_patients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Whole months and one-digit risks, so that ties of time and of risk are many.
    months = np.ceil(rng.exponential(30, num_patients))
    event = rng.random(num_patients) < 0.5
    return months, event, np.round(-months / 30 + rng.normal(size=num_patients), 1)


def test_ties_by_hand() -> None:
    # A event 2, B event 4, C censored 4, D event 4, E censored 6; risks 3, 2, 2, 1, 2.
    # Comparable: A with B, C, D, E; B with C, E; D with C, E = 8. (B, D): two events at one time.
    # Concordant: the four of A. Tied risk: (B, C), (B, E). Discordant: (D, C), (D, E).
    pairs = PairCounts.of([2, 4, 4, 4, 6], [1, 1, 0, 1, 0], [3, 2, 2, 1, 2], tau_months=60)
    assert (pairs.concordant, pairs.tied, pairs.comparable) == (4, 2, 8)
    assert (pairs.num_patients, pairs.num_events) == (5, 3)
    assert pairs.c_index == 5 / 8


def test_tau_turns_later_events_into_censorings() -> None:
    months, event, risk = [2.0, 4.0, 6.0], [1, 1, 1], [3.0, 1.0, 2.0]
    assert PairCounts.of(months, event, risk, tau_months=4.0).comparable == 2
    assert PairCounts.of(months, event, risk, tau_months=4.1).comparable == 3


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_survival(seed: int) -> None:
    months, event, risk = cohort(120, seed)
    value, concordant, discordant, tied, _ = concordance_index_censored(
        event, months, risk, tied_tol=0
    )
    pairs = PairCounts.of(months, event, risk, tau_months=1e6)
    counts = (pairs.concordant, pairs.comparable - pairs.concordant - pairs.tied, pairs.tied)
    assert counts == (concordant, discordant, tied)
    assert pairs.c_index == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_equals_lifelines_without_ties_of_event_times(seed: int) -> None:
    months, event, risk = cohort(120, seed)
    months = months + np.random.default_rng(seed).random(120)
    value = lifelines.utils.concordance_index(months, -risk, event)
    assert PairCounts.of(months, event, risk, tau_months=1e6).c_index == pytest.approx(value)


def test_replicates_are_the_pairs_of_the_resampled_hospital() -> None:
    months, event, risk = cohort(40, 1)
    pairs = PairCounts.of(
        months, event, risk, tau_months=24, replicates=6, rng=np.random.default_rng(9)
    )
    draws = np.random.default_rng(9).multinomial(40, np.full(40, 1 / 40), size=6)
    for times, row in zip(draws, pairs.replicates, strict=True):
        chosen = np.repeat(np.arange(40), times)
        again = PairCounts.of(months[chosen], event[chosen], risk[chosen], tau_months=24)
        assert row.tolist() == [again.concordant, again.tied, again.comparable]


def test_pooled_interval_needs_only_sums() -> None:
    rng = np.random.default_rng(4)
    parts = []
    for seed in range(4):
        months, event, risk = cohort(80, seed)
        parts.append(PairCounts.of(months, event, risk, tau_months=60, replicates=500, rng=rng))
    total = merge_all(parts)
    low, high = total.interval()
    assert low < total.c_index < high
    assert high - low == pytest.approx(2 * 1.96 * total.standard_error, rel=0.1)
    assert total.standard_error < min(part.standard_error for part in parts)


def test_interval_covers_the_true_index() -> None:
    # Gaussian score, proportional hazards, no censoring before tau: C = P(onset_i < onset_j | risk
    # higher), estimated once on 4,000 patients; 95 % intervals of 60 patients should hold it.
    def draw(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        score = rng.normal(size=number)
        return rng.exponential(np.exp(-score)), np.ones(number), score

    rng = np.random.default_rng(0)
    truth = PairCounts.of(*draw(4000, rng), tau_months=1e6).c_index
    held = 0
    for _ in range(200):
        pairs = PairCounts.of(*draw(60, rng), tau_months=1e6, replicates=200, rng=rng)
        low, high = pairs.interval()
        held += low <= truth <= high
    assert 178 <= held <= 199


def test_large_hospital_in_seconds() -> None:
    months, event, risk = cohort(1500, 7)
    pairs = PairCounts.of(
        months, event, risk, tau_months=60, replicates=50, rng=np.random.default_rng(1)
    )
    assert pairs.replicates[:, 2].mean() == pytest.approx(pairs.comparable, rel=0.05)


def test_small_hospitals_send_nothing() -> None:
    for patients, events, sent in ((4, 4, 0), (5, 5, 5), (9, 4, 0), (9, 5, 9)):
        pairs = PairCounts.of(
            np.arange(1, patients + 1),
            np.arange(patients) < events,
            np.ones(patients),
            tau_months=60,
        )
        assert pairs.suppressed(5).num_patients == sent


def test_bad_input_is_named() -> None:
    with pytest.raises(PayloadError, match="differ in length"):
        PairCounts.of([1.0, 2.0], [1], [0.1, 0.2], tau_months=60)
    with pytest.raises(PayloadError, match="not finite"):
        PairCounts.of([1.0, np.nan], [1, 0], [0.1, 0.2], tau_months=60)
    with pytest.raises(PayloadError, match="pass rng"):
        PairCounts.of([1.0, 2.0], [1, 0], [0.1, 0.2], tau_months=60, replicates=3)
    bad = PairCounts.of([1.0, 2.0], [1, 0], [0.1, 0.2], tau_months=60).to_dict()
    with pytest.raises(PayloadError, match="more concordant"):
        PairCounts.from_dict({**bad, "concordant": 99})
