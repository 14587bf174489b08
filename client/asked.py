"""What a hospital has answered about one model, so that questions cannot be added up to a patient.

The weights of an evaluation come from the centre: a censoring curve that singles out one month, or
calibration curves without end, would turn sums into persons. So a model is judged under at most
three plans (grid and censoring curve; a study that is resumed after a hospital was away needs a
second), at a bounded number of calibration curves. The same question again costs nothing: it has
the same answer. What this does not stop is a centre that uses its three plans to that end.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.hospital import Hospital
from protocol.arrays import Arrays, fingerprint
from protocol.config import Study
from protocol.errors import DataError
from protocol.evaluation import SMALLEST_G, EvaluationPlan
from protocol.stats.censoring import CensoringCurve

__all__ = ["MAX_CURVES", "MAX_PLANS", "allow"]

MAX_PLANS = 3
MAX_CURVES = 500
FILE = "evaluated.json"


def allow(
    hospital: Hospital, study: Study, model: Arrays, plan: EvaluationPlan, role: str
) -> CensoringCurve:
    """Return the censoring curve under which the model may be judged, and note the question.

    Raises
    ------
    DataError
        If the model was judged under three other plans before, the curve has weights above 50, or
        more than 500 different calibration curves were asked for.
    """
    curve = plan.censoring[role]
    if any(0 < value < SMALLEST_G for value in curve.survival):
        raise DataError(
            f"The censoring curve falls to {min(v for v in curve.survival if v > 0):.3g}, where "
            f"{SMALLEST_G:g} is the least this hospital accepts; end the time grid earlier."
        )
    file = hospital.workspace(study) / FILE
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    entry = known.setdefault(fingerprint(model), {"plans": [], "curves": []})
    entry["plans"] = sorted({_plan_digest(plan, role), *entry["plans"]})
    if len(entry["plans"]) > MAX_PLANS:
        raise DataError(
            f"{hospital.name} has judged this model on {MAX_PLANS} other grids or censoring "
            "curves, and the differences could point at patients; give the study another name if "
            "it has to be judged anew."
        )
    asked = {_digest(each.to_dict()) for each in plan.curves}
    entry["curves"] = sorted(asked | set(entry["curves"]))
    if len(entry["curves"]) > MAX_CURVES:
        raise DataError(
            f"{hospital.name} has answered {MAX_CURVES} calibration curves of this model and "
            "answers no further one; give the study another name if it has to be judged anew."
        )
    _write(file, known)
    return curve


def _plan_digest(plan: EvaluationPlan, role: str) -> str:
    # Other hospitals' censoring is not this one's: a role without a curve changes nothing here.
    document = {**plan.to_dict(), "curves": [], "censoring": plan.censoring[role].to_dict()}
    return _digest(document)


def _digest(document: Sequence[Any] | dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write(file: Path, known: dict[str, Any]) -> None:
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps(known, sort_keys=True), encoding="utf-8")
    scratch.replace(file)
