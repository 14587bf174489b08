"""Figures of pair counts and overlap sums."""

import numpy as np
import pytest

from protocol.stats import OverlapSums, PairCounts
from server.judgements import Overlap, Ranking


def test_a_ranking_is_the_pairs_own_figures() -> None:
    rng = np.random.default_rng(1)
    months, event, risk = rng.exponential(20, 60), rng.random(60) < 0.6, rng.normal(size=60)
    pairs = PairCounts.of(months, event, risk, tau_months=60, replicates=50, rng=rng)
    figure = Ranking.of(pairs)
    assert figure.c_index == pairs.c_index and figure.se == pairs.standard_error
    assert (figure.lower, figure.upper) == pairs.interval()
    assert (figure.patients, figure.events, figure.pairs) == (
        60,
        pairs.num_events,
        pairs.comparable,
    )


def test_nobody_has_no_figure() -> None:
    figure = Ranking.of(PairCounts.empty(60.0, 10))
    assert (figure.patients, figure.c_index, figure.se, figure.lower) == (0, None, None, None)
    assert Overlap.of(OverlapSums.empty()) == Overlap()


def test_mean_dice_by_hand() -> None:
    # LV .9 and .7 (mean .8), MYO undefined in one patient (.6), RV .5 and .7; ED and ES alike.
    dice = np.array([[[0.9] * 2, [0.6] * 2, [0.5] * 2], [[0.7] * 2, [np.nan] * 2, [0.7] * 2]])
    figure = Overlap.of(OverlapSums.of(dice))
    assert figure.patients == 2
    assert figure.by_class == pytest.approx({"LV": 0.8, "MYO": 0.6, "RV": 0.6})
    assert figure.dice == pytest.approx(2 / 3)


def test_the_interval_of_dice_is_never_too_narrow() -> None:
    # 400 groups of 25 patients whose classes agree within a patient as they like.
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        level = rng.normal(0, 0.04, (25, 1, 1)) * rng.choice([0, 1])
        dice = 0.8 + level + rng.normal(0, 0.04, (25, 3, 2))
        figure = Overlap.of(OverlapSums.of(dice))
        assert figure.lower is not None and figure.upper is not None
        covered += figure.lower <= 0.8 <= figure.upper
    assert covered >= 370
