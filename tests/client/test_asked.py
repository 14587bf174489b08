"""One model, three plans, a bounded number of curves; the same question again is no other."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from client import asked
from client.hospital import Hospital, open_hospital
from protocol.config import Study
from protocol.errors import DataError
from protocol.evaluation import AskedCurve, EvaluationPlan
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.censoring import CensoringCurve
from sim.secret import write_public_secret

MODEL = {"weight": np.arange(3.0, dtype=np.float32)}
GRID = (0.0, 12.0, 24.0)
PLAN = EvaluationPlan(
    grid_months=GRID,
    horizons_months=(24.0,),
    score_edges=(0.5,),
    thresholds=(0.2,),
    censoring={"train": CensoringCurve(GRID, (1.0, 0.8, 0.6))},
)


def curves(number: int, first: int = 0) -> tuple[AskedCurve, ...]:
    return tuple(
        AskedCurve("train", 24.0, CalibrationCurve("intercept", (), (float(first + index),)))
        for index in range(number)
    )


@pytest.fixture
def hospital(tmp_path: Path) -> tuple[Hospital, Study]:
    with (tmp_path / "outcomes.csv").open("w", newline="") as stream:
        rows = [["id", "fu", "ev"], *([f"A{i}", i + 1, i % 2] for i in range(12))]
        csv.writer(stream).writerows(rows)
    outcomes = {"path": "outcomes.csv", "patient": "id", "months": "fu", "event": "ev"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"name": "h0", "outcomes": outcomes}))
    write_public_secret(tmp_path)
    study = Study.model_validate(
        {"name": "s", "seed": 1, "hospitals": {"train": ["h0"]}, "stages": ["survey"]}
    )
    return open_hospital(tmp_path, study), study


def test_a_model_is_judged_under_three_plans(hospital: tuple[Hospital, Study]) -> None:
    for last in (0.6, 0.5, 0.4, 0.6):
        curve = CensoringCurve(GRID, (1.0, 0.8, last))
        plan = replace(PLAN, censoring={"train": curve})
        assert asked.allow(*hospital, MODEL, plan, "train") == curve
    fourth = replace(PLAN, thresholds=(0.3,))
    with pytest.raises(DataError, match="h0 has judged this model on 3 other grids or censoring"):
        asked.allow(*hospital, MODEL, fourth, "train")
    other = {"weight": MODEL["weight"] + 1}
    asked.allow(*hospital, other, fourth, "train")


def test_another_roles_censoring_is_no_other_plan(hospital: tuple[Hospital, Study]) -> None:
    for last in (0.6, 0.5, 0.4, 0.3):
        external = CensoringCurve(GRID, (1.0, 0.8, last))
        plan = replace(PLAN, censoring={**PLAN.censoring, "external": external})
        asked.allow(*hospital, MODEL, plan, "train")


def test_curves_are_counted_once_each(
    hospital: tuple[Hospital, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "MAX_CURVES", 6)
    for first in (0, 3, 0, 3):
        asked.allow(*hospital, MODEL, replace(PLAN, curves=curves(3, first)), "train")
    with pytest.raises(DataError, match="has answered 6 calibration curves of this model"):
        asked.allow(*hospital, MODEL, replace(PLAN, curves=curves(1, 6)), "train")


@pytest.mark.parametrize("last", [0.02, 0.0])
def test_weights_are_bounded_at_fifty(hospital: tuple[Hospital, Study], last: float) -> None:
    fine = replace(PLAN, censoring={"train": CensoringCurve(GRID, (1.0, 0.8, last))})
    asked.allow(*hospital, MODEL, fine, "train")
    thin = replace(PLAN, censoring={"train": CensoringCurve(GRID, (1.0, 0.8, 0.019))})
    with pytest.raises(DataError, match=r"falls to 0\.019, where 0\.02 is the least"):
        asked.allow(*hospital, MODEL, thin, "train")
