"""Every statistic through words modulo 2^64: the sum is the merged statistic, to the step."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from privacy.secure_sum.statistics import num_words, pack_statistics, unpack_statistics
from protocol.errors import PayloadError, PrivacyError
from protocol.stats import (
    AgreementSums,
    Calibration,
    Histogram,
    LifeTable,
    Moments,
    PairCounts,
    ScoreTable,
    merge_all,
)
from protocol.stats.additive import additive
from protocol.stats.agreement_powers import AgreementPowers
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.confusion import ConfusionSums
from protocol.stats.cumulative_incidence import CauseTable
from protocol.stats.d_calibration import DCalibration
from protocol.stats.missingness import Missingness
from protocol.stats.normal_equations import NormalEquations
from protocol.stats.power_sums import PowerSums
from protocol.stats.risk_sums import RiskSums
from protocol.stats.score_counts import ScoreCounts
from protocol.stats.sums import Sums
from protocol.stats.tally import Tally
from protocol.stats.timed_pairs import uno_pairs
from protocol.stats.vectors import LABELS, from_vector, to_vector
from shared_models.heads.cox_two_phase import RiskSetSums

SIZES = (40, 3, 25)
GRID = tuple(float(month) for month in range(0, 49, 6))
EDGES = (0.2, 0.4, 0.6, 0.8)
FLAT = CensoringCurve(GRID, (1.0, *np.linspace(0.98, 0.4, len(GRID) - 1)))
NAMES, RANGES = ("age", "gene"), [(18.0, 95.0), (-1.0, 1.0)]
CURVE = CalibrationCurve.ideal("linear")


class Patients:
    """One hospital's numbers."""

    def __init__(self, number: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.risk = rng.uniform(0.02, 0.98, number)
        self.months = rng.uniform(0.5, 60, number)
        self.event = (rng.random(number) < 0.5).astype(int)
        age, gene = rng.normal(61, 11, number), rng.normal(3.0, 0.2, number)
        age[rng.random(number) < 0.2] = np.nan
        self.table = np.column_stack([age, gene])
        self.values = rng.normal(55, 9, number)
        self.measured = self.values + rng.normal(1, 3, number)

    @property
    def outcome(self) -> tuple[np.ndarray, np.ndarray]:
        return self.months, self.event


def _risk_sets(p: Patients) -> RiskSetSums:
    at_risk = np.array([(p.months >= month).sum() for month in GRID[1:]])
    hazard = [np.exp(p.risk[p.months >= month]).sum() for month in GRID[1:]]
    logs = [np.log(value) if value else 0.0 for value in hazard]
    return RiskSetSums(GRID[1:], np.array(logs), at_risk, np.zeros(len(at_risk), int), p.risk.sum())


Maker = Callable[[Patients], Any]
# By class that travels: what a hospital answers, the sums of nobody, and the way back.
KINDS: dict[str, tuple[Maker, Any, Callable[[Any], Any]]] = {
    "moments": (
        lambda p: Moments.of(NAMES, p.table),
        PowerSums.empty(NAMES, RANGES),
        lambda total: total.moments(),
    ),
    "agreement": (
        lambda p: AgreementSums.of("lv_ef_percent", p.measured, p.values),
        AgreementPowers.empty("lv_ef_percent"),
        lambda total: total.agreement(),
    ),
    "score table": (
        lambda p: ScoreTable.of(*p.outcome, p.risk, edges=EDGES, grid_months=GRID),
        ScoreCounts.empty(EDGES, GRID),
        lambda total: total.table(),
    ),
    "risk sets": (
        _risk_sets,
        RiskSums.empty(GRID[1:]),
        lambda total: RiskSetSums.from_dict(total.document()),
    ),
    "histogram": (lambda p: Histogram.of(p.risk), Histogram.empty(), lambda total: total),
    "life table": (
        lambda p: LifeTable.of(*p.outcome, p.risk > 0.5, grid_months=GRID, names=("low", "high")),
        LifeTable.empty(GRID, ("low", "high")),
        lambda total: total,
    ),
    "calibration": (
        lambda p: Calibration.of(*p.outcome, p.risk, cuts=EDGES, grid_months=GRID),
        Calibration.empty(EDGES, GRID),
        lambda total: total,
    ),
    "missingness": (
        lambda p: Missingness.of(NAMES, p.table),
        Missingness.empty(NAMES),
        lambda total: total,
    ),
    "pairs": (
        lambda p: PairCounts.of(*p.outcome, p.risk, tau_months=48, replicates=4, rng=p.rng),
        PairCounts.empty(48.0, 4),
        lambda total: total,
    ),
    "weighted pairs": (
        lambda p: uno_pairs(
            *p.outcome, p.risk, tau_months=48, censoring=FLAT, replicates=4, rng=p.rng
        ),
        uno_pairs([], [], [], tau_months=48, censoring=FLAT, replicates=4, rng=np.random),
        lambda total: total,
    ),
    "brier": (
        lambda p: BrierSums.of(
            *p.outcome,
            np.column_stack([1 - p.risk / 2, 1 - p.risk]),
            horizons_months=(24.0, 48.0),
            censoring=FLAT,
            replicates=3,
            rng=p.rng,
        ),
        BrierSums.empty((24.0, 48.0), 3),
        lambda total: total,
    ),
    "calibration step": (
        lambda p: CalibrationStep.of(
            *p.outcome, p.risk, curve=CURVE, horizon_months=24.0, censoring=FLAT
        ),
        CalibrationStep.empty(CURVE, 24.0),
        lambda total: total,
    ),
    "calibration errors": (
        lambda p: CalibrationErrors.of(p.risk, CURVE),
        CalibrationErrors.empty(),
        lambda total: total,
    ),
    "d-calibration": (
        lambda p: DCalibration.of(1 - p.risk, p.event, num_bins=5),
        DCalibration.empty(5),
        lambda total: total,
    ),
    "confusion": (
        lambda p: ConfusionSums.of(("x", "y"), p.event, p.risk > 0.5),
        ConfusionSums.empty(("x", "y")),
        lambda total: total,
    ),
    "causes": (
        lambda p: CauseTable.of(p.months, 2 * p.event, grid_months=GRID, causes=("scd", "other")),
        CauseTable.empty(GRID, ("scd", "other")),
        lambda total: total,
    ),
    "normal equations": (
        lambda p: NormalEquations.of(("a", "b"), "y", np.c_[p.risk, p.event], p.values / 60),
        NormalEquations.empty(("a", "b"), "y"),
        lambda total: total,
    ),
    "tally": (
        lambda p: Tally.of(("all", "years"), {"all": p.risk.size, "years": p.months.sum()}),
        Tally.empty(("all", "years")),
        lambda total: total,
    ),
}


def _summed(parts: list[Sums], nobody: Any, number: int = 3) -> Any:
    sent = [pack_statistics({"it": additive(nobody, part.to_dict())}, number, 36) for part in parts]
    words = np.sum(sent, axis=0, dtype=np.uint64)
    return unpack_statistics({"it": nobody}, words, 36)["it"]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [] if isinstance(value, str) else [float(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_masked_statistics_is_the_merged_one(kind: str) -> None:
    make, nobody, back = KINDS[kind]
    parts = [make(Patients(size, seed)) for seed, size in enumerate(SIZES)]
    merged = merge_all(parts)
    found = back(_summed(parts, nobody))
    assert type(found) is type(merged)
    np.testing.assert_allclose(
        _numbers(found.to_dict()), _numbers(merged.to_dict()), rtol=2e-8, atol=2e-6
    )
    # Words add exactly: the order is irrelevant to the bit, and who drops is left out to the bit.
    for order in permutations(parts):
        assert _summed(list(order), nobody) == _summed(parts, nobody)
    rest = back(_summed(parts[:2], nobody))
    np.testing.assert_allclose(
        _numbers(rest.to_dict()), _numbers(merge_all(parts[:2]).to_dict()), rtol=2e-8, atol=2e-6
    )
    # And nobody adds nothing.
    assert _summed([*parts, back(nobody)], nobody, 4) == _summed(parts, nobody, 4)


def test_every_class_that_travels_is_tested_here_or_with_the_regression() -> None:
    tested = {type(nobody) for _, nobody, _ in KINDS.values()}
    regression = {"CoxSums", "CoxResiduals", "CoxGridSums", "GradientSums"}
    assert {kind.__name__ for kind in LABELS} == {kind.__name__ for kind in tested} | regression


def test_a_constant_stays_one_and_a_value_far_outside_the_range_is_counted_as_it_is() -> None:
    table = np.array([[70.1, 400.0]] * 6 + [[70.1, 400.5]])
    parts: list[Sums] = [Moments.of(NAMES, table[:4]), Moments.of(NAMES, table[4:])]
    found = _summed(parts, PowerSums.empty(NAMES, RANGES)).moments()
    assert found.sd[0] == 0.0 and found.mean[0] == pytest.approx(70.1, abs=1e-7)
    assert found.sd[1] == pytest.approx(np.std(table[:, 1], ddof=1), rel=1e-6)


def test_a_number_beyond_the_sum_s_range_is_named_before_it_is_masked() -> None:
    huge = PowerSums.empty(NAMES, RANGES).filled(Moments.of(NAMES, np.full((5, 2), 1e6)))
    with pytest.raises(PrivacyError, match="The statistic 'covariates' holds a magnitude of"):
        pack_statistics({"covariates": huge}, 3, 36)


def test_a_diverged_step_of_a_curve_is_cut_and_still_too_unlikely_to_be_accepted() -> None:
    step = CalibrationStep.empty(CURVE, 24.0)
    far = CalibrationStep(
        **(vars(step) | {"log_likelihood": -1e16, "squared": np.full((2, 2), 1e30)})
    )
    words = np.sum([pack_statistics({"step": far}, 3, 36)] * 3, axis=0, dtype=np.uint64)
    found = unpack_statistics({"step": step}, words, 36)["step"]
    assert -(2.0**34) < found.log_likelihood < -1e9 and (found.squared > 1e9).all()


def test_an_answer_that_counts_something_else_or_a_sum_of_another_length_is_refused() -> None:
    other = Histogram.of([0.5], num_bins=10).to_dict()
    with pytest.raises(PayloadError, match="Histogram: the answer counts other things"):
        additive(Histogram.empty(), other)
    with pytest.raises(PayloadError, match="of other variables"):
        additive(PowerSums.empty(NAMES, RANGES), Moments.empty(("age", "sex")).to_dict())
    tree = {"bins": Histogram.empty()}
    with pytest.raises(PayloadError, match="holds 99 numbers and the question asked for 100"):
        unpack_statistics(tree, np.zeros(num_words(tree) - 1, np.uint64), 36)


def test_pairs_without_a_discordant_one_survive_their_rounding() -> None:
    nobody = uno_pairs([], [], [], tau_months=48, censoring=FLAT)
    three = np.array([2, 2, 3, 0.4, 0.4, 0.4 * 2 - 2**-19], np.float64)
    found = from_vector(nobody, three)
    assert found.comparable == found.concordant + found.tied
    assert to_vector(found).size == 6
