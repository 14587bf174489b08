"""The sums of a Cox regression: a case by hand, merging, checks, suppression."""

import json
import math

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats import CoxGridSums, CoxHazard, CoxResiduals, CoxSums, merge_all

NAMES = ("age", "ef")


def grid_case() -> CoxGridSums:
    """Four patients, x = 1 1 0 0, at beta = ln 2 (r = 2 2 1 1): both x = 1 die in month 1.

    A third is censored in month 2, the last dies in month 3. Month 1: S0 = 6, S1 = S2 = 4,
    T0 = T1 = T2 = 4. Month 3: S0 = 1 and S1 = 0.
    """
    square = np.array([4.0, 0.0]).reshape(2, 1, 1)
    return CoxGridSums(
        names=("x",),
        grid_months=(1.0, 3.0),
        beta=np.array([math.log(2)]),
        num_patients=4,
        num_sites=1,
        deaths=np.array([2, 1]),
        event_weight=np.array([2.0, 1.0]),
        event_x=np.array([[2.0], [0.0]]),
        risk0=np.array([6.0, 1.0]),
        risk1=np.array([[4.0], [0.0]]),
        risk2=square,
        tied0=np.array([4.0, 1.0]),
        tied1=np.array([[4.0], [0.0]]),
        tied2=square,
        coarse_months=0.0,
        withheld=0,
    )


def test_breslow_by_hand() -> None:
    sums = grid_case().partial_likelihood("breslow")
    # 2 ln 2 - 2 ln 6 - ln 1; 2 - 2 (4/6); 2 (4/6) (2/6).
    assert sums.log_likelihood == pytest.approx(-2 * math.log(3), abs=1e-15)
    assert sums.gradient[0] == pytest.approx(2 / 3, abs=1e-15)
    assert sums.information[0, 0] == pytest.approx(4 / 9, abs=1e-15)


def test_efron_by_hand() -> None:
    sums = grid_case().partial_likelihood("efron")
    # The second tied death sees S0 = 6 - 4/2 = 4, S1 = 4 - 4/2 = 2: mean 1/2, variance 1/4.
    assert sums.log_likelihood == pytest.approx(2 * math.log(2) - math.log(24), abs=1e-15)
    assert sums.gradient[0] == pytest.approx(2 - 4 / 6 - 1 / 2, abs=1e-15)
    assert sums.information[0, 0] == pytest.approx(2 / 9 + 1 / 4, abs=1e-15)


def test_hazard_by_hand() -> None:
    assert grid_case().hazard("breslow").hazard.tolist() == [2 / 6, 1.0]
    efron = grid_case().hazard("efron")
    assert efron.hazard.tolist() == [1 / 6 + 1 / 4, 1.0]
    assert efron.event_mean[0, 0] == pytest.approx((4 / 6 + 1 / 2) / 2)
    steps = efron.cumulative([0.9, 1.0, 2.9, 3.0]).tolist()
    assert steps == pytest.approx([0, 5 / 12, 5 / 12, 17 / 12])
    # x = 1 doubles the hazard.
    assert efron.survival([[1.0]], [1.0])[0, 0] == pytest.approx(math.exp(-10 / 12))


def cox_sums(seed: int, patients: int = 12) -> CoxSums:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(patients, 2))
    events = patients // 2
    gradient = x.sum(axis=0)
    return CoxSums(
        NAMES,
        ("efron",),
        np.array([0.1, -0.2]),
        patients,
        events,
        int(events > 0),
        float(events),
        float(-events),
        gradient if events else np.zeros(2),
        x.T @ x if events else np.zeros((2, 2)),
        0,
    )


def residuals(seed: int, patients: int = 12) -> CoxResiduals:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(patients, 2))
    g = rng.normal(size=patients)
    return CoxResiduals(
        NAMES,
        np.array([0.1, -0.2]),
        ("log",),
        patients,
        patients,
        x.T @ x,
        float(patients),
        float(g.sum()),
        float(g @ g),
        x.sum(axis=0),
        g @ x,
        0.5,
        0,
    )


@pytest.mark.parametrize("make", [cox_sums, residuals])
def test_merge_laws(make: object) -> None:
    a, b, c = (make(seed) for seed in range(3))  # type: ignore[operator]
    assert a + b == b + a
    left, right = (a + b) + c, a + (b + c)
    np.testing.assert_allclose(
        np.ravel(left.information if make is cox_sums else left.outer),
        np.ravel(right.information if make is cox_sums else right.outer),
        rtol=1e-13,
    )
    empty = (
        CoxSums.empty(NAMES, a.beta, "efron")
        if make is cox_sums
        else CoxResiduals.empty(NAMES, a.beta, "log")
    )
    assert a + empty == a == empty + a


def test_grid_merge_laws() -> None:
    a = grid_case()
    empty = CoxGridSums.empty(a.names, a.grid_months, a.beta)
    assert a + empty == a == empty + a
    # Every sum doubles, and with it Breslow's terms but for ln 2 an event.
    twice = merge_all([a, a])
    assert twice.num_patients == 8
    single, double = a.partial_likelihood("breslow"), twice.partial_likelihood("breslow")
    assert double.log_likelihood == pytest.approx(2 * single.log_likelihood - 6 * math.log(2))
    assert double.gradient.tolist() == pytest.approx((2 * single.gradient).tolist())


def test_a_part_comes_out_again() -> None:
    a, b = cox_sums(1), cox_sums(2, 8)
    left = (a + b).without(b)
    assert (left.num_patients, left.num_events, left.num_sites) == (12, 6, 1)
    np.testing.assert_allclose(left.gradient, a.gradient, atol=1e-13)
    with pytest.raises(PayloadError, match="counts more patients than the whole"):
        b.without(a)


@pytest.mark.parametrize(
    "value",
    [cox_sums(1), grid_case(), residuals(1), grid_case().hazard("efron")],
    ids=["stratified", "grid", "residuals", "hazard"],
)
def test_json_loses_nothing(value: object) -> None:
    kind = type(value)
    assert kind.from_dict(json.loads(json.dumps(value.to_dict()))) == value  # type: ignore[attr-defined]


def test_small_hospitals_send_a_mark() -> None:
    sums = cox_sums(1, 12)
    assert sums.suppressed(6) == sums
    assert sums.suppressed(7) == CoxSums.empty(NAMES, sums.beta, "efron", withheld=1)
    grid = grid_case()
    assert grid.suppressed(3) == grid
    assert grid.suppressed(4) == CoxGridSums.empty(grid.names, grid.grid_months, grid.beta, 1)
    assert residuals(1, 4).suppressed(5).num_patients == 0
    assert residuals(1, 4).suppressed(1) == residuals(1, 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"information": [[1.0, 2.0], [0.0, 1.0]]}, "CoxSums.information is not symmetric"),
        ({"information": [[-1.0, 0.0], [0.0, 1.0]]}, "CoxSums.information has a negative diag"),
        ({"gradient": [1.0]}, "do not have one entry a covariate"),
        ({"gradient": [1.0, float("inf")]}, "CoxSums.gradient must hold finite numbers"),
        ({"num_events": 13}, "more events than patients"),
        ({"num_sites": 7}, "more hospitals with events than events"),
        ({"event_weight": 0.0}, "weight does not match their number"),
        ({"ties": ["exact"]}, "Ties are treated as 'exact'; write one of breslow, efron."),
        ({"ties": []}, "name one rule for tied events"),
        ({"names": ["age", "age"]}, "a covariate is named twice"),
        ({"names": []}, "0 covariates; 1 to 200 are allowed"),
        ({"patients": 1}, "key 'patients' is unknown"),
    ],
)
def test_impossible_sums_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence):
        CoxSums.from_dict({**cox_sums(1).to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"risk0": [-1.0, 1.0]}, "CoxGridSums.risk0 has a negative sum"),
        ({"deaths": [0, 1]}, "weight does not match their number"),
        ({"deaths": [2, 9]}, "more events than patients"),
        ({"tied0": [7.0, 1.0]}, "events weigh more than the risk set"),
        ({"grid_months": [3.0, 1.0]}, "must rise from above 0 months"),
        ({"grid_months": [0.0, 1.0]}, "must rise from above 0 months"),
        ({"grid_months": [1.0]}, "does not match the grid"),
        ({"grid_months": []}, "at most 1000 and 200 are allowed"),
    ],
)
def test_impossible_grids_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence):
        CoxGridSums.from_dict({**grid_case().to_dict(), **change})


def test_a_grid_too_large_to_send_is_refused() -> None:
    with pytest.raises(PayloadError, match="coarser grid or the stratified form"):
        CoxGridSums.empty([f"x{i}" for i in range(40)], np.arange(1.0, 120.0), np.zeros(40))


def test_unlike_things_are_not_added() -> None:
    a = cox_sums(1)
    other = CoxSums(**(vars(a) | {"beta": np.zeros(2)}))
    with pytest.raises(PayloadError, match="different coefficients"):
        a.merge(other)
    with pytest.raises(PayloadError, match="rules for ties"):
        a.merge(CoxSums(**(vars(a) | {"ties": ("breslow",)})))
    hazard: CoxHazard = grid_case().hazard("efron")
    with pytest.raises(PayloadError, match="Hazards cannot be added"):
        hazard.merge(hazard)
    with pytest.raises(PayloadError, match="different grids"):
        grid_case().merge(CoxGridSums.empty(("x",), (1.0,), grid_case().beta))


def test_a_risk_set_without_weight_is_refused() -> None:
    broken = CoxGridSums(
        **(vars(grid_case()) | {"risk0": np.array([6.0, 0.0]), "tied0": np.array([4.0, 0.0])})
    )
    with pytest.raises(PayloadError, match="A risk set that holds an event has no weight"):
        broken.partial_likelihood("efron")
