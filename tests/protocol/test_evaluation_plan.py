"""What is agreed before predictions are judged: it survives JSON, and is checked when received."""

import json
from dataclasses import replace

import pytest

from protocol.errors import PayloadError
from protocol.evaluation import (
    SMALLEST_G,
    AskedCurve,
    EvaluationPlan,
    bounded_weights,
    evaluation_grid,
    horizon_key,
)
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.censoring import CensoringCurve

GRID = (0.0, 6.0, 12.0)
PLAN = EvaluationPlan(
    grid_months=GRID,
    horizons_months=(6.0, 12.0),
    score_edges=(0.1, 0.5),
    thresholds=(0.2,),
    baseline_months=(6.0, 12.0),
    baseline_hazard=(0.1, 0.3),
    censoring={"external": CensoringCurve(GRID, (1.0, 0.9, 0.5))},
    curves=(AskedCurve("train", 6.0, CalibrationCurve("linear", (), (0.1, 0.9))),),
)


def test_it_survives_json() -> None:
    assert EvaluationPlan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"horizons_months": [7.0]}, "A horizon is no point of the grid"),
        ({"grid_months": "0"}, "The evaluation's grid_months must be a list of finite numbers"),
        ({"baseline_hazard": []}, "The baseline hazard needs one value a month"),
        ({"curves": [{}]}, "A curve that is asked lacks curve, horizon_months, role"),
        ({"curves": PLAN.to_dict()["curves"] * 49}, "At most 48 curves are asked at once"),
        ({"censoring": {"all": PLAN.to_dict()["censoring"]["external"]}}, "train and external"),
        ({"patients": []}, "has 1 unknown key"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict, sentence: str) -> None:
    with pytest.raises(PayloadError, match=sentence):
        EvaluationPlan.from_dict({**PLAN.to_dict(), **change})


def test_a_role_that_does_not_exist_is_refused() -> None:
    asked = {**PLAN.curves[0].to_dict(), "role": "test"}
    with pytest.raises(PayloadError, match="is train or external"):
        AskedCurve.from_dict(asked)
    assert replace(PLAN, curves=()).end_months == 12.0


def test_weights_are_truncated_at_fifty() -> None:
    curve = bounded_weights(CensoringCurve((0.0, 1.0, 2.0, 3.0), (1.0, 0.5, 0.001, 0.0)))
    assert curve.survival == (1.0, 0.5, SMALLEST_G, 0.0)
    assert max(curve.weight([1.0, 2.0, 3.0])) == 50


@pytest.mark.parametrize("end", [3.0, 60.0, 119.5, 120.0, 600.0])
def test_the_grid_holds_every_horizon_in_at_most_120_intervals(end: float) -> None:
    cuts = tuple(end * (k + 1) / 7 for k in range(7))
    horizons = (0.55 * end, end)
    grid = evaluation_grid(cuts, horizons)
    assert grid[0] == 0 and grid[-1] == end and len(grid) <= 121
    assert {*cuts, *horizons} <= set(grid)
    assert list(grid) == sorted(set(grid))
    assert horizon_key(60.0) == "60"
