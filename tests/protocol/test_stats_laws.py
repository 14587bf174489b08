"""Laws every mergeable statistic obeys: parts add up to the whole, in any order, through JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import protocol.stats as stats
from protocol.errors import PayloadError
from protocol.stats import (
    AgreementSums,
    Calibration,
    Histogram,
    LifeTable,
    Moments,
    OverlapSums,
    PairCounts,
    Sums,
    merge_all,
    monthly_grid,
)

GRID = monthly_grid(60.0)


@dataclass
class Patients:
    """Simulated numbers of N patients; slicing gives a hospital's share."""

    table: np.ndarray  # (N, 6): months, event, risk, predicted, reference, covariate

    def part(self, start: int, stop: int) -> "Patients":
        return Patients(self.table[start:stop])


def simulate(num_patients: int, seed: int = 3) -> Patients:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=num_patients)
    onset = rng.exponential(50 * np.exp(-0.8 * score))
    end = rng.uniform(12, 96, num_patients)
    months, event = np.minimum(onset, end), onset <= end
    reference = rng.normal(50, 12, num_patients)
    predicted = reference + rng.normal(1, 3, num_patients)
    covariate = np.where(rng.random(num_patients) < 0.2, np.nan, rng.normal(60, 10, num_patients))
    risk = 1 / (1 + np.exp(-score))
    return Patients(np.column_stack([months, event, risk, predicted, reference, covariate]))


def overlap(p: Patients) -> OverlapSums:
    dice = np.abs(p.table[:, 2:3, None] - np.zeros((1, 3, 2)) - np.arange(6).reshape(1, 3, 2) / 20)
    hd95 = np.where(dice > 0.6, 4 * dice, np.nan)
    return OverlapSums.of(dice, hd95, None)


MAKERS: dict[str, Callable[[Patients], Sums]] = {
    "moments": lambda p: Moments.of(("age", "risk"), p.table[:, [5, 2]]),
    "overlap": overlap,
    "agreement": lambda p: AgreementSums.of("lv_ef_percent", p.table[:, 3], p.table[:, 4]),
    "histogram": lambda p: Histogram.of(p.table[:, 2], num_bins=40),
    "life table": lambda p: LifeTable.of(
        p.table[:, 0], p.table[:, 1], p.table[:, 2] > 0.5, grid_months=GRID, names=("low", "high")
    ),
    "calibration": lambda p: Calibration.of(
        p.table[:, 0], p.table[:, 1], p.table[:, 2], cuts=(0.3, 0.6), grid_months=GRID
    ),
    "pairs": lambda p: PairCounts.of(
        p.table[:, 0],
        p.table[:, 1],
        p.table[:, 2],
        tau_months=60,
        replicates=7,
        rng=np.random.default_rng(len(p.table)),
    ),
}


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("name", MAKERS)
def test_order_of_two_is_irrelevant_to_the_bit(name: str) -> None:
    patients = simulate(90)
    a, b = MAKERS[name](patients.part(0, 31)), MAKERS[name](patients.part(31, 90))
    assert a + b == b + a


@pytest.mark.parametrize("name", MAKERS)
def test_merge_is_associative(name: str) -> None:
    patients = simulate(90)
    cuts = ((0, 20), (20, 55), (55, 90))
    a, b, c = (MAKERS[name](patients.part(*cut)) for cut in cuts)
    left, right = (a + b) + c, a + (b + c)
    np.testing.assert_allclose(numbers(left.to_dict()), numbers(right.to_dict()), rtol=1e-12)
    if name in {"pairs", "life table", "histogram"}:
        assert left == right


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"pairs"}))
def test_parts_add_up_to_the_whole(name: str) -> None:
    patients = simulate(90)
    parts = [
        MAKERS[name](patients.part(*cut)) for cut in ((0, 1), (1, 1), (1, 30), (30, 31), (31, 90))
    ]
    whole = numbers(MAKERS[name](patients).to_dict())
    np.testing.assert_allclose(numbers(merge_all(parts).to_dict()), whole, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_json_loses_nothing(name: str) -> None:
    sums = MAKERS[name](simulate(50))
    for value in (sums, sums.suppressed(5)):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


@pytest.mark.parametrize("name", MAKERS)
def test_empty_changes_nothing(name: str) -> None:
    sums, nobody = MAKERS[name](simulate(50)), MAKERS[name](simulate(50).part(0, 0))
    assert sums + nobody == sums == nobody + sums


@pytest.mark.parametrize("name", MAKERS)
def test_one_patient_leaves_nothing_after_suppression(name: str) -> None:
    one = MAKERS[name](simulate(1)).suppressed(5)
    blank = MAKERS[name](simulate(1).part(0, 0)).to_dict()
    assert {**one.to_dict(), "withheld": 0, "table": 0} == {**blank, "withheld": 0, "table": 0}


@pytest.mark.parametrize("name", MAKERS)
def test_suppression_at_one_changes_nothing(name: str) -> None:
    sums = MAKERS[name](simulate(50))
    assert sums.suppressed(1) == sums


@pytest.mark.parametrize("name", MAKERS)
def test_values_cannot_be_changed(name: str) -> None:
    sums = MAKERS[name](simulate(20))
    arrays = [value for value in vars(sums).values() if isinstance(value, np.ndarray)]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_public_names_are_the_module() -> None:
    names = {
        name for name, value in vars(stats).items() if not name.startswith("_") and callable(value)
    }
    assert names | {"OVERLAP_METRICS", "QUANTITIES"} == set(stats.__all__)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n": [1, 2]}, "Moments: every array needs one entry a name."),
        ({"n": [1.5]}, "Moments.n must hold whole numbers of at least 0."),
        ({"n": [-1]}, "Moments.n must hold whole numbers of at least 0."),
        ({"n": [True]}, "Moments.n must hold whole numbers of at least 0."),
        ({"mean": [float("nan")]}, "Moments.mean must hold finite numbers."),
        ({"mean": 3.0}, "Moments.mean must be a list."),
        ({"n": [[1], [1, 2]]}, "Moments.n has rows of unequal length; send a full table."),
        ({"names": [3]}, "Moments.names must hold text."),
        ({"squares": [-1.0]}, "Moments: squared deviations are never negative."),
        (
            {"patient": 1},
            "Moments: key 'patient' is unknown; it has names, n, missing, mean, squares.",
        ),
    ],
)
def test_a_wrong_message_is_refused_in_one_sentence(change: dict, sentence: str) -> None:
    good = Moments.of(("age",), [[60.0], [np.nan], [70.0]]).to_dict()
    with pytest.raises(PayloadError) as caught:
        Moments.from_dict({**good, **change})
    assert caught.value.sentence == sentence


def test_unlike_things_are_not_added() -> None:
    with pytest.raises(PayloadError, match="different variables"):
        Moments.empty(("age",)).merge(Moments.empty(("bmi",)))
    with pytest.raises(PayloadError, match="different tau"):
        PairCounts.empty(60.0).merge(PairCounts.empty(48.0))
    with pytest.raises(PayloadError, match="different cut points"):
        Calibration.empty((0.1,), GRID).merge(Calibration.empty((0.2,), GRID))
    with pytest.raises(PayloadError, match="nothing to add"):
        merge_all([])
