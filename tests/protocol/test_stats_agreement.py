"""Bland-Altman, overlap, calibration, histogram: golden numbers and what suppression leaves."""

import numpy as np
import pytest
from scipy.stats import linregress, pearsonr

from protocol.errors import PayloadError
from protocol.stats import (
    AgreementSums,
    Calibration,
    Histogram,
    LifeTable,
    Moments,
    OverlapSums,
    monthly_grid,
    risk_group,
)
from protocol.stats.cells import blocks, spread


def test_bland_altman_by_hand() -> None:
    # Differences 1, -1, 3: bias 1, sd 2, limits 1 -/+ 3.92, MAE 5/3.
    sums = AgreementSums.of("lv_ef_percent", [51, 39, 63], [50, 40, 60])
    assert (sums.n, sums.bias) == (3, pytest.approx(1.0))
    assert sums.difference_sd == pytest.approx(2.0)
    assert sums.limits == (pytest.approx(-2.92), pytest.approx(4.92))
    assert sums.mae == pytest.approx(5 / 3)


def test_correlation_and_lins_concordance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(100, 20, 200)
    y = 0.9 * x + rng.normal(0, 6, 200) + 4
    sums = AgreementSums.of("lv_edv_ml", x, y)
    assert sums.correlation == pytest.approx(pearsonr(x, y)[0])
    expected = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert sums.concordance == pytest.approx(expected)
    assert AgreementSums.of("lv_edv_ml", x, x).concordance == pytest.approx(1.0)


def test_table_counts_on_the_fixed_grid() -> None:
    # EF grid: means 0-96 % in 3 % bins, differences -24..24 % in 1.5 % bins.
    sums = AgreementSums.of("lv_ef_percent", [51.0, 99.0, np.nan], [50.0, 1.0, 50.0])
    assert sums.table.sum() == 2
    assert sums.table[16, 16] == 1  # mean 50.5, difference 1
    assert sums.table[16, 31] == 1  # difference 98 stands in the end bin


def test_agreement_limits_at_the_limit() -> None:
    nobody = AgreementSums.empty("lv_mass_g")
    assert np.isnan([nobody.bias, nobody.mae, nobody.difference_sd, nobody.concordance]).all()
    one = AgreementSums.of("lv_mass_g", [100], [90])
    assert one.bias == 10
    assert np.isnan(one.difference_sd)
    with pytest.raises(PayloadError, match="is none of lv_ef_percent"):
        AgreementSums.of("height", [1.0], [1.0])


def test_coarse_table_keeps_its_total_and_hides_patients() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(50, 10, 60)
    sums = AgreementSums.of("lv_ef_percent", truth + rng.normal(0, 4, 60), truth)
    sent = sums.suppressed(5)
    assert sent.table.sum() == pytest.approx(60)
    assert sent.bias == sums.bias
    counts = sums.table.astype(np.int64)
    assert all(counts[box].sum() == 0 or counts[box].sum() >= 5 for box in blocks(counts, 5))
    assert len(blocks(counts, 5)) > 4


def test_blocks_are_found_without_the_data() -> None:
    # Every box edge is a halving of the grid, wherever the patients stand.
    rng = np.random.default_rng(2)
    for _ in range(20):
        counts = rng.poisson(0.6, 64)
        spans = [(span.start, span.stop) for (span,) in blocks(counts, 5)]
        assert sorted(spans)[0][0] == 0
        assert all(start % (stop - start) == 0 for start, stop in spans)
    assert spread(np.array([3, 0, 0, 0]), 5).tolist() == [0, 0, 0, 0]
    assert spread(np.array([3, 2, 0, 7]), 5).tolist() == [2.5, 2.5, 0, 7]


def test_moments_survive_a_large_mean() -> None:
    values = 1e9 + np.array([[0.0], [1.0], [2.0], [3.0]])
    whole = Moments.of(("x",), values[:2]) + Moments.of(("x",), values[2:])
    assert whole.sd[0] == pytest.approx(np.std([0, 1, 2, 3], ddof=1), rel=1e-12)


def test_suppressed_moments_show_no_small_count() -> None:
    values = np.random.default_rng(0).normal(60, 10, (23, 2))
    values[:2, 0] = np.nan
    values[4:, 1] = np.nan
    exact = Moments.of(("age", "bmi"), values)
    sent = exact.suppressed(5)
    assert (exact.n.tolist(), exact.missing.tolist()) == ([21, 4], [2, 19])
    assert (sent.n.tolist(), sent.missing.tolist()) == ([20, 0], [0, 0])
    assert sent.mean[0] == exact.mean[0]
    assert sent.sd[0] == pytest.approx(exact.sd[0])


def test_overlap_counts_only_defined_values() -> None:
    dice = np.full((3, 3, 2), 0.9)
    dice[0, 2, 1] = np.nan
    dice[:, 0, 0] = [0.8, 0.9, 1.0]
    sums = OverlapSums.of(dice, assd_mm=2 * dice)
    assert sums.cell("dice", "RV", "ES").n == 2
    cell = sums.cell("dice", "LV", "ED")
    assert (cell.n, cell.mean, cell.sd) == (3, pytest.approx(0.9), pytest.approx(0.1))
    assert sums.cell("assd_mm", "LV", "ED").mean == pytest.approx(1.8)
    assert np.isnan(sums.cell("hd95_mm", "LV", "ED").mean)
    with pytest.raises(PayloadError, match=r"dice has shape \(3, 2, 2\)"):
        OverlapSums.of(np.ones((3, 2, 2)))
    with pytest.raises(PayloadError, match="hold no 'dice/LA/ED'"):
        sums.cell("dice", "LA", "ED")


def test_calibrated_predictions_lie_on_the_line() -> None:
    rng = np.random.default_rng(5)
    rate = rng.uniform(0.002, 0.03, 20_000)
    months = rng.exponential(1 / rate)
    predicted = 1 - np.exp(-rate * 36)
    end = rng.uniform(20, 80, len(rate))
    data = (np.minimum(months, end), months <= end)
    cuts, grid = (0.2, 0.35, 0.5), monthly_grid(36.0)
    sums = Calibration.of(*data, predicted, cuts=cuts, grid_months=grid)
    value, low, high = sums.observed()
    np.testing.assert_allclose(value, sums.mean_predicted, atol=0.02)
    assert ((low < value) & (value < high)).all()
    slope, intercept = sums.slope()
    assert (slope, intercept) == (pytest.approx(1, abs=0.05), pytest.approx(0, abs=0.03))
    assert sums.observed_over_expected() == pytest.approx(1, abs=0.03)
    extreme = Calibration.of(*data, np.clip(2 * predicted - 0.4, 0, 1), cuts=cuts, grid_months=grid)
    assert extreme.slope()[0] < 0.7


def test_slope_equals_weighted_regression() -> None:
    grid = (0.0, 12.0)
    months, event = np.full(8, 12.0), np.array([0, 0, 0, 1, 1, 0, 1, 1])
    predicted = np.array([0.1, 0.1, 0.2, 0.2, 0.6, 0.6, 0.9, 0.9])
    sums = Calibration.of(months, event, predicted, cuts=(0.5, 0.8), grid_months=grid)
    slope, intercept = sums.slope()
    x, y, n = [0.15, 0.6, 0.9], [0.25, 0.5, 1.0], [4, 2, 2]
    fit = linregress(np.repeat(x, n), np.repeat(y, n))
    assert (slope, intercept) == (pytest.approx(fit.slope), pytest.approx(fit.intercept))


def test_calibration_refuses_impossible_risks() -> None:
    with pytest.raises(PayloadError, match=r"outside \[0, 1\]"):
        Calibration.of([1.0], [1], [1.2], cuts=(0.5,), grid_months=(0, 12))
    with pytest.raises(PayloadError, match="cut points must rise"):
        Calibration.empty((0.5, 0.5), (0.0, 12.0))
    with pytest.raises(PayloadError, match="one more group"):
        Calibration((0.5,), np.zeros(1), LifeTable.empty((0.0, 12.0), ("all",)))


def test_quantiles_are_within_a_bin_of_the_exact() -> None:
    values = np.random.default_rng(0).beta(2, 5, 500)
    sums = Histogram.of(values)
    for q in (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 0.95, 1.0):
        assert sums.quantile(q) == pytest.approx(np.quantile(values, q), abs=0.011)
    groups = np.bincount(risk_group(values, sums.cuts(3)))
    assert groups.min() > 150
    with pytest.raises(PayloadError, match="empty"):
        Histogram.empty().cuts(3)
    with pytest.raises(PayloadError, match=r"\[0, 1\]"):
        sums.quantile(1.5)


def test_cut_points_rise_even_when_all_scores_share_a_bin() -> None:
    first, second = Histogram.of(np.full(30, 0.505)).cuts(3)
    assert 0.5 < first < second < 0.51


def test_a_cut_point_belongs_to_the_group_above() -> None:
    assert risk_group([0.1, 0.2, 0.3], (0.2, 0.3)).tolist() == [0, 1, 2]
