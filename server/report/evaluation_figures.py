"""Curves of the evaluation: observed against predicted risk, and the benefit of acting on it."""

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from protocol.secure_groups import TOGETHER
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.decision_curve import DecisionCurve, decision_curve
from server.evaluation_results import CalibrationResult
from server.report.evaluation import Z_95, Judgement
from server.report.style import EXTERNAL, INTERNAL, MUTED, line_styles, new_figure, svg

__all__ = ["calibration_curves", "decision_curves", "decision_note"]

POINTS = 60


def calibration_curves(parts: list[tuple[str, Judgement]]) -> Markup | None:
    """Return the fitted curves, one panel a role, one line a horizon; None where none was fitted.

    The spline, or where it could not be fitted the straight line, over the range of predicted risk
    that 99 % of the training patients have.
    """
    drawn = [(title, judged, _fits(judged)) for title, judged in parts]
    drawn = [part for part in drawn if part[2]]
    if not drawn:
        return None
    with new_figure(4.2 * len(drawn), 3.9) as figure:
        panels = figure.subplots(1, len(drawn), squeeze=False)[0]
        for panel, (title, judged, fits) in zip(panels, drawn, strict=True):
            styles = line_styles(len(fits))
            for fit, (colour, dash) in zip(fits, styles, strict=True):
                _curve(panel, fit, _risks(judged), colour, dash)
            panel.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls="--")
            panel.set_title(title)
            panel.set_xlabel("Predicted probability")
            panel.set_ylabel("Observed")
            panel.set_xlim(0, 1)
            panel.set_ylim(0, 1)
            panel.set_aspect("equal")
            panel.legend(loc="upper left")
            panel.grid(lw=0.4, alpha=0.4)
        return svg(figure, "calibration-curves", "Smooth observed against predicted risk")


def _fits(judged: Judgement) -> list[CalibrationResult]:
    found = []
    for horizon in judged.common.horizons_months:
        fit = judged.fit(horizon, "spline") or judged.fit(horizon, "linear")
        if fit is not None:
            found.append(fit)
    return found


def _risks(judged: Judgement) -> np.ndarray:
    table = judged.sums.score_table
    edges = table.edges if table is not None and table.edges else (0.01, 0.99)
    low, high = max(edges[0], 1e-3), min(edges[-1], 1 - 1e-3)
    return np.linspace(low, max(high, low + 1e-3), POINTS)


def _curve(panel: Any, fit: CalibrationResult, risks: np.ndarray, colour: str, dash: str) -> None:
    curve = CalibrationCurve(fit.form, fit.knots, fit.coefficients)
    columns, offset = curve.design(risks)
    middle = columns @ np.asarray(fit.coefficients) + offset
    spread = np.einsum("ni,ij,nj->n", columns, np.asarray(fit.covariance), columns)
    half = Z_95 * np.sqrt(np.maximum(spread, 0))
    low, centre, high = (
        -np.expm1(-np.exp(np.clip(eta, -30, 30))) for eta in (middle - half, middle, middle + half)
    )
    panel.fill_between(risks, low, high, color=colour, alpha=0.13, lw=0)
    label = f"by month {fit.horizon_months:g}"
    panel.plot(risks, centre, color=colour, ls=dash, lw=1.8, label=label)


def _decision(judged: Judgement) -> DecisionCurve | None:
    bands = judged.sums.bands
    if bands is None or not bands.num_patients.any():
        return None
    curve = decision_curve(bands, judged.common.thresholds)
    return curve if np.isfinite(curve.model).any() else None


def decision_curves(parts: list[tuple[str, Judgement]]) -> Markup | None:
    """Return net benefit by threshold: the model, treating all, treating none."""
    drawn = [(title, judged, _decision(judged)) for title, judged in parts]
    curves = [(title, judged, curve) for title, judged, curve in drawn if curve is not None]
    if not curves:
        return None
    with new_figure(4.6 * len(curves), 3.4) as figure:
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for panel, (title, judged, curve) in zip(panels, curves, strict=True):
            colour = EXTERNAL if judged.role == "external" else INTERNAL
            panel.plot(curve.thresholds, curve.model, "o-", color=colour, lw=1.8, label="model")
            panel.plot(curve.thresholds, curve.treat_all, "--", color=MUTED, label="treat all")
            panel.axhline(0, color=MUTED, lw=0.9, ls=":", label="treat none")
            top = float(np.nanmax([*curve.model, *curve.treat_all, 0.05]))
            panel.set_ylim(-0.1, 1.1 * top)
            panel.set_title(title)
            panel.set_xlabel(f"Treat from this risk by month {judged.end_months:g}")
            panel.set_ylabel("Net benefit per patient")
            panel.legend(loc="lower left")
            panel.grid(lw=0.4, alpha=0.4)
        return svg(figure, "decision-curves", "Net benefit of model, treat all and treat none")


def decision_note(title: str, judged: Judgement) -> str:
    """Return on how many patients a decision curve rests, and what was withheld."""
    curve, bands = _decision(judged), judged.sums.bands
    if curve is None or bands is None:
        return ""
    events = float(bands.events.sum())
    note = f"{title}: {curve.num_patients:,.0f} patients, {events:,.0f} events"
    hidden = int(bands.withheld.sum())
    if hidden:
        whose = "" if set(judged.sites) <= set(TOGETHER.values()) else " of single hospitals"
        note += f"; {hidden} bands{whose} withheld as too small"
    return note + ("." if math.isfinite(curve.num_patients) else "")
