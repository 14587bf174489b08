"""The table adds exactly, is sparse, holds no small box, and bounds the index of 1,000 cohorts."""

import importlib.util
import json
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
)

from protocol.errors import PayloadError
from protocol.stats import Histogram, PairCounts, merge_all, monthly_grid
from protocol.stats.boxes import occupied_boxes
from protocol.stats.cells import blocks
from protocol.stats.score_table import ScoreTable, score_edges
from protocol.stats.table_concordance import auc_at, harrell_c, uno_c
from protocol.stats.timed_pairs import auc_pairs, uno_pairs


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
GRID = monthly_grid(60.0)
EDGES = tuple(float(value) for value in np.arange(1, 20) / 20)
KINDS = ("mixed", "no event", "all events")


def table(patients, edges=EDGES, grid=GRID) -> ScoreTable:
    return ScoreTable.of(
        patients.months, patients.event, patients.risk, edges=edges, grid_months=grid
    )


def exact_c(patients, horizon=60.0) -> float:
    """Harrell's C of the values themselves; `PairCounts` stops just before its tau."""
    pairs = PairCounts.of(
        patients.months, patients.event, patients.risk, tau_months=np.nextafter(horizon, np.inf)
    )
    return pairs.c_index


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_hospitals_add_up_to_the_whole_in_any_order(seed: int, kind: str, number: int) -> None:
    rng = np.random.default_rng(seed)
    whole = ex.cohort(int(rng.integers(1, 60)), rng, whole_months=False, kind=kind)
    parts = [table(part) for part in ex.hospitals(whole, number, rng)]
    total = merge_all(parts)
    assert total == table(whole) == merge_all(parts[::-1])
    assert total + ScoreTable.empty(EDGES, GRID) == total
    assert ScoreTable.from_dict(json.loads(json.dumps(total.to_dict()))) == total
    assert total.num_patients == len(whole)
    life = ex.life_table(whole, GRID)
    assert total.life_table() == life


@pytest.mark.parametrize("whole_months", [True, False])
def test_true_error_lies_within_the_bound_on_1000_federations(whole_months: bool) -> None:
    rng = np.random.default_rng(11)
    for trial in range(500):
        whole = ex.cohort(
            int(rng.integers(1, 70)), rng, whole_months=whole_months, kind=KINDS[trial % 7 % 3]
        )
        bins = int(rng.integers(1, 40))
        edges = tuple(float(value) for value in np.arange(1, bins) / bins)
        min_cell = int(rng.integers(1, 6))
        parts = [table(part, edges) for part in ex.hospitals(whole, 3, rng)]
        found = harrell_c(merge_all(parts), times_on_grid=whole_months)
        truth = exact_c(whole)
        if np.isnan(truth):
            assert np.isnan(found.value) or not whole_months
        else:
            assert found.low - 1e-12 <= truth <= found.high + 1e-12
            assert abs(found.value - truth) <= found.error_bound + 1e-12
        told = merge_all([part.suppressed(min_cell) for part in parts])
        if told.withheld == 0 and np.isfinite(truth):
            coarse = harrell_c(told, times_on_grid=whole_months)
            assert coarse.low - 1e-12 <= min(found.low, truth)
            assert max(truth, found.high) <= coarse.high + 1e-12
            assert coarse.low <= coarse.value <= coarse.high


def test_below_a_thousandth_at_1000_bins() -> None:
    # A score without ties, bins of equal content from the hospitals' summed histograms.
    rng = np.random.default_rng(5)
    last = 1.0
    for bins in (10, 100, 1000):
        worst = 0.0
        for _ in range(4):
            whole = ex.cohort(1500, rng)
            whole = ex.Cohort(whole.months, whole.event, rng.normal(whole.risk, 0.05) * 0.02)
            parts = ex.hospitals(whole, 8, rng)
            scores = merge_all(
                [Histogram.of(part.risk, -0.01, 0.03, num_bins=20_000) for part in parts]
            )
            edges = score_edges(scores, bins)
            found = harrell_c(merge_all([table(part, edges) for part in parts]), times_on_grid=True)
            assert abs(found.value - exact_c(whole)) <= found.error_bound
            worst = max(worst, found.error_bound)
        assert worst < last / 5
        last = worst
    assert last < 1e-3


def test_the_bound_shrinks_as_bins_and_months_are_halved() -> None:
    whole = ex.cohort(300, np.random.default_rng(2), whole_months=False)
    bounds = []
    for bins, months in ((10, 12.0), (20, 6.0), (40, 3.0), (80, 1.5)):
        edges = tuple(float(value) for value in np.arange(1, bins) / bins)
        grid = tuple(float(value) for value in np.arange(0, 60 + months, months))
        bounds.append(harrell_c(table(whole, edges, grid)).error_bound)
    assert all(later < 0.7 * earlier for earlier, later in pairwise(bounds))


def _distinct(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.unique(values)[1:])


@pytest.mark.parametrize("block", range(8))
def test_one_bin_a_value_gives_the_pooled_figures(block: int) -> None:
    # Each of the 25 against the pooled pairs, two of them against scikit-survival itself.
    grid = tuple(float(month) for month in range(101))
    for seed in range(25 * block, 25 * block + 25):
        rng = np.random.default_rng(seed)
        whole = ex.cohort(int(rng.integers(20, 60)), rng)
        parts = [table(p, _distinct(whole.risk), grid) for p in ex.hospitals(whole, 3, rng)]
        total, g = merge_all(parts), ex.censoring(whole, grid)
        given = (whole.months, whole.event, whole.risk)
        found = (
            harrell_c(total, times_on_grid=True).value,
            uno_c(total, g, times_on_grid=True).value,
            auc_at(total, g, 12.0).value,
        )
        expected = (
            PairCounts.of(*given, tau_months=1e6).c_index,
            uno_pairs(*given, tau_months=1e6, censoring=g).value,
            auc_pairs(*given, horizon_months=12.0, censoring=g).value,
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        if seed % 25 > 1 or g.at(whole.months[whole.event]).min() == 0:
            continue
        outcome = ex.structured(whole)
        expected = (
            concordance_index_censored(whole.event, whole.months, whole.risk, tied_tol=0)[0],
            concordance_index_ipcw(outcome, outcome, whole.risk, tied_tol=0)[0],
            cumulative_dynamic_auc(outcome, outcome, whole.risk, [12.0], tied_tol=0)[0][0],
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_uno_and_auc_lie_within_their_bounds_coarse_or_not() -> None:
    rng = np.random.default_rng(8)
    for _ in range(100):
        whole = ex.cohort(120, rng)
        g = ex.censoring(whole, GRID)
        fine = table(whole, _distinct(whole.risk))
        truth = uno_c(fine, g, times_on_grid=True).value, auc_at(fine, g, 24.0).value
        for rough in (table(whole), table(whole, EDGES[1::4]).suppressed(4)):
            for value, found in zip(
                truth, (uno_c(rough, g, times_on_grid=True), auc_at(rough, g, 24.0)), strict=True
            ):
                assert found.low - 1e-12 <= value <= found.high + 1e-12
                assert found.low <= found.value <= found.high


def test_a_hand_worked_table() -> None:
    # Two score bins at .5, months 0-1, 1-2, beyond. A: event in (0, 1], high. B: event in (1, 2],
    # low. C: censored in (0, 1], high. D: beyond, high.
    # Certain: A-B concordant; A-D comparable, same score bin; B-D discordant. Open in time: A-C.
    # low = 1 / (1 + [A-D, A-C, B-D]) = 1/4; high = [A-B, A-D, A-C] / (3 + [B-D]) = 3/4;
    # value = (1 + 1/2) / 3.
    sums = ScoreTable.of(
        [0.5, 1.5, 0.7, 9], [1, 1, 0, 0], [0.9, 0.1, 0.8, 0.7], edges=(0.5,), grid_months=(0, 1, 2)
    )
    found = harrell_c(sums)
    assert (found.low, found.value, found.high, found.comparable) == (1 / 4, 1 / 2, 3 / 4, 3)
    assert found.error_bound == 1 / 4
    # Had all four times been whole months, A and C would stand at one time: comparable, C later.
    exact = harrell_c(sums, times_on_grid=True)
    assert (exact.low, exact.value, exact.high) == (1 / 4, 2 / 4, 3 / 4)


def test_no_pair_is_nan_and_one_patient_is_no_pair() -> None:
    for months, event in (([], []), ([3.0], [1]), ([3.0, 4.0], [0, 0])):
        sums = ScoreTable.of(months, event, np.zeros(len(months)), edges=(), grid_months=GRID)
        assert np.isnan(harrell_c(sums).value)
        assert np.isnan(auc_at(sums, ex.CensoringCurve(GRID, (1.0,) * 61), 12.0).value)


@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_no_published_box_is_small(seed: int, min_cell: int) -> None:
    rng = np.random.default_rng(seed)
    own = table(ex.cohort(int(rng.integers(1, 80)), rng, whole_months=False))
    told = own.suppressed(min_cell)
    rows = told.boxes.reshape(-1, 6)
    assert (rows[:, 5] >= min_cell).all()
    censored = own.num_patients - own.num_events
    small = any(0 < count < min_cell for count in (own.num_events, censored))
    assert told.withheld == int(small)
    kept = 0 if small else own.num_patients
    assert (told.num_patients, told.num_events) == (kept, own.num_events if kept else 0)
    assert told.life_table().num_patients == pytest.approx(kept)


def test_boxes_of_a_square_table_are_those_of_the_dense_rule() -> None:
    rng = np.random.default_rng(3)
    for shape in ((16, 16), (32, 32)):
        counts = rng.poisson(0.3, shape)
        cells = np.argwhere(counts)
        found = occupied_boxes(cells, counts[tuple(cells.T)], shape, 4)
        dense = [box for box in blocks(counts, 4) if counts[box].sum()]
        expected = sorted(
            [a.start, a.stop - 1, b.start, b.stop - 1, int(counts[a, b].sum())] for a, b in dense
        )
        assert sorted(found.tolist()) == expected


def test_an_axis_is_halved_no_more_often_than_the_other_unless_it_must() -> None:
    # Two patients a cell, at scores 3 and 40 in each of 4 months: scores 0-31 and 32-63 are parted,
    # then months 0-1 and 2-3; halves without patients are dropped until each box has one score.
    cells = np.array([[s, m] for s in (3, 40) for m in (0, 1, 2, 3)])
    found = occupied_boxes(cells, np.full(8, 2), (64, 4), 4)
    expected = [[s, s, m, m + 1, 4] for s in (3, 40) for m in (0, 2)]
    assert sorted(found.tolist()) == expected
    with pytest.raises(PayloadError, match="no publishable box"):
        occupied_boxes(cells, np.full(8, 2), (64, 4), 17)
    with pytest.raises(PayloadError, match="min_cell is 0"):
        occupied_boxes(cells, np.full(8, 2), (64, 4), 0)


def test_a_thousand_bins_by_ten_years_in_a_second() -> None:
    rng = np.random.default_rng(1)
    whole = ex.cohort(20_000, rng)
    edges = tuple(float(value) for value in np.arange(1, 1000) / 1000)
    scores = np.clip(whole.risk + rng.normal(0, 0.02, len(whole)), 0, 1)
    sums = table(ex.Cohort(whole.months, whole.event, scores), edges, monthly_grid(120.0))
    start = time.perf_counter()
    found = harrell_c(sums, times_on_grid=True)
    assert time.perf_counter() - start < 1.0
    assert found.error_bound < 2e-3
    assert len(json.dumps(sums.to_dict())) < 30 * 20_000


def test_what_leaves_is_bins_and_counts() -> None:
    patients = ex.cohort(200, np.random.default_rng(4), whole_months=False)
    sent = table(patients).suppressed(5).to_dict()
    assert set(sent) == {"edges", "grid_months", "boxes", "withheld"}
    assert (sent["edges"], sent["grid_months"]) == (list(EDGES), list(GRID))
    numbers = np.array(sent["boxes"])
    assert numbers.dtype == np.int64 and (numbers[:, 5] >= 5).all()


OUTSIDE = "ScoreTable: a box lies outside the grid or holds nobody."
WRONG = {
    "empty box": ({"boxes": [[0, 0, 0, 0, 1, 0]]}, OUTSIDE),
    "event beyond the end": ({"boxes": [[0, 9, 60, 60, 1, 5]]}, OUTSIDE),
    "short rows": (
        {"boxes": [[1, 2, 3]]},
        "ScoreTable: every box holds two score bins, two time bins, a status and a count.",
    ),
    "not sorted": (
        {"boxes": [[2, 2, 1, 1, 0, 5], [1, 1, 1, 1, 0, 5]]},
        "ScoreTable: boxes must be sorted, each listed once.",
    ),
    "edges": (
        {"edges": [0.5, 0.5]},
        "ScoreTable: the score's cut points must rise, at most 999 of them.",
    ),
    "grid": (
        {"grid_months": [0.0]},
        "ScoreTable: the grid must rise from 0 over 1 to 120 intervals.",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_in_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(PayloadError) as caught:
        ScoreTable.from_dict({**ScoreTable.empty(EDGES, GRID).to_dict(), **change})
    assert caught.value.sentence == sentence


def test_unlike_tables_and_horizons_are_named() -> None:
    empty = ScoreTable.empty(EDGES, GRID)
    with pytest.raises(PayloadError, match="different cut points or grids"):
        empty.merge(ScoreTable.empty(EDGES[1:], GRID))
    with pytest.raises(PayloadError, match="stand on different grids"):
        uno_c(empty, ex.CensoringCurve((0.0, 1.0), (1.0, 1.0)))
    with pytest.raises(PayloadError, match=r"12\.5 is no grid point"):
        auc_at(empty, ex.CensoringCurve(GRID, (1.0,) * 61), 12.5)
    with pytest.raises(PayloadError, match="negative or not finite"):
        ScoreTable.of([np.nan], [1], [0.5], edges=EDGES, grid_months=GRID)
    coarse = table(ex.cohort(60, np.random.default_rng(0))).suppressed(5)
    with pytest.raises(PayloadError, match="own table of single cells"):
        coarse.suppressed(5)
