"""Federations that break metrics: every figure is finite, right, nan or refused with the reason."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats import Histogram, PairCounts, merge_all, monthly_grid
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_fit import fit_calibration
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table, decision_curve
from protocol.stats.score_table import ScoreTable, score_edges
from protocol.stats.table_concordance import auc_at, harrell_c, uno_c
from protocol.stats.timed_pairs import antolini_pairs, auc_pairs, uno_pairs


def _load() -> ModuleType:
    place = Path(__file__).with_name("survival_examples.py")
    spec = importlib.util.spec_from_file_location("survival_examples", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ex = _load()
HORIZONS = (12.0, 24.0)
GRID = monthly_grid(24.0)
EDGES = tuple(float(value) for value in np.arange(1, 50) / 50)


def evaluate(parts) -> dict[str, float]:
    """All figures of a federation, from sums only; patients within a hospital stay there."""
    tables = [
        ScoreTable.of(p.months, p.event, p.risk, edges=EDGES, grid_months=GRID) for p in parts
    ]
    total = merge_all(tables)
    g = CensoringCurve.from_table(total.life_table())
    curves = [p.survival(np.asarray(GRID)) for p in parts]
    brier = merge_all(
        [
            BrierSums.of(p.months, p.event, c[:, [12, 24]], horizons_months=HORIZONS, censoring=g)
            for p, c in zip(parts, curves, strict=True)
        ]
    )
    uno = [uno_pairs(p.months, p.event, p.risk, tau_months=24, censoring=g) for p in parts]
    auc = [auc_pairs(p.months, p.event, p.risk, horizon_months=24, censoring=g) for p in parts]
    antolini = [
        antolini_pairs(p.months, p.event, c, grid_months=GRID, tau_months=24)
        for p, c in zip(parts, curves, strict=True)
    ]
    bands = [
        band_table(p.months, p.event, 1 - c[:, -1], thresholds=(0.3,), grid_months=GRID)
        for p, c in zip(parts, curves, strict=True)
    ]
    return {
        "harrell": harrell_c(total, times_on_grid=True).value,
        "uno": uno_c(total, g, times_on_grid=True).value,
        "auc": auc_at(total, g, 24.0).value,
        "brier": float(brier.scores[1]),
        "ibs": brier.integrated(),
        "uno within": merge_all(uno).value,
        "auc within": merge_all(auc).value,
        "antolini within": merge_all(antolini).value,
        "net benefit": float(decision_curve(merge_all(bands), (0.3,)).model[0]),
    }


WITHIN = {"uno within", "auc within", "antolini within"}


def test_all_events_at_one_hospital() -> None:
    whole = ex.cohort(80, np.random.default_rng(1))
    parts = [whole.part(whole.event), whole.part(~whole.event)]
    split, pooled = evaluate(parts), evaluate([whole])
    for name, value in split.items():
        assert np.isfinite(value)
        if name not in WITHIN:
            assert value == pytest.approx(pooled[name], abs=1e-12)


def test_one_event_in_all() -> None:
    whole = ex.cohort(60, np.random.default_rng(2), kind="no event")
    event = np.zeros(60, bool)
    early = int(np.argmin(whole.months))
    event[early] = True
    lone = ex.Cohort(whole.months, event, whole.risk)
    found = evaluate([lone.part(slice(0, 30)), lone.part(slice(30, 60))])
    assert all(np.isfinite(value) for value in found.values())
    others = np.delete(whole.risk, early)
    bins, own = np.floor(others * 50 + 1e-9), np.floor(whole.risk[early] * 50 + 1e-9)
    expected = (bins < own).mean() + (bins == own).mean() / 2
    assert found["harrell"] == pytest.approx(expected, abs=1e-12)


def test_the_same_patients_in_two_hospitals_change_no_proportion() -> None:
    # Every patient counted twice: pairs of a patient with the own copy are never comparable.
    whole = ex.cohort(70, np.random.default_rng(3))
    once, twice = evaluate([whole]), evaluate([whole, whole])
    for name, value in twice.items():
        assert value == pytest.approx(once[name], abs=1e-9)


@pytest.mark.parametrize("size", [0, 1])
def test_nobody_and_one_patient(size: int) -> None:
    found = evaluate(
        [ex.cohort(size, np.random.default_rng(4)), ex.cohort(0, np.random.default_rng(4))]
    )
    for name in ("harrell", "uno", "auc", *WITHIN):
        assert np.isnan(found[name])
    assert np.isnan(found["brier"]) == (size == 0)


def test_nobody_is_told_before_a_fit() -> None:
    with pytest.raises(PayloadError, match="with and without the event by the horizon"):
        fit_calibration(
            lambda curve: CalibrationStep.empty(curve, 24.0), CalibrationCurve.ideal("linear")
        )
    assert np.isnan(DCalibration.empty().chi_square()[0])
    with pytest.raises(PayloadError, match="histogram is empty"):
        score_edges(Histogram.empty(), 10)


def test_the_c_index_of_67_real_centres(shared_data: Path) -> None:
    # The pooled Cox model of the data's golden values; 44 distinct times, so the grid is exact.
    place = shared_data / "survival" / "survset" / "Dialysis.csv"
    with place.open(newline="") as file:
        rows = list(csv.DictReader(file))
    disease = {"diabetes": 0.987546, "hypert": 0.693365, "other": 0.729817, "renal": 0.740076}
    score = np.array(
        [
            0.034388 * float(row["num_age"])
            + 0.006506 * float(row["num_begin"])
            + disease.get(row["fac_disease"], 0.0)
            for row in rows
        ]
    )
    months = np.array([float(row["time"]) for row in rows])
    event = np.array([int(row["event"]) for row in rows])
    centre = np.array([row["fac_center"] for row in rows])
    grid = ex.exact_grid(months)
    where = [centre == value for value in np.unique(centre)]
    assert (len(where), len(rows)) == (67, 6805)
    edges = score_edges(
        merge_all([Histogram.of(score[w], -1.0, 6.0, num_bins=20_000) for w in where]), 1000
    )
    total = merge_all(
        [ScoreTable.of(months[w], event[w], score[w], edges=edges, grid_months=grid) for w in where]
    )
    found = harrell_c(total, times_on_grid=True)
    pairs = PairCounts.of(months, event, score, tau_months=1e6)
    assert found.comparable == pairs.comparable
    assert abs(found.value - pairs.c_index) <= found.error_bound < 1e-3
    assert found.value == pytest.approx(0.6506, abs=0.003)  # ties of events count otherwise there
