"""C-index by arm, Kaplan-Meier by risk group, calibration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from protocol.stats import Calibration, LifeTable, PairCounts
from server.report.style import EXTERNAL, GROUPS, INTERNAL, MUTED, line_styles, new_figure, svg

__all__ = ["ForestRow", "calibration_figure", "forest_figure", "kaplan_meier_figure"]


@dataclass(frozen=True)
class ForestRow:
    """One line of the C-index figure."""

    label: str
    internal: PairCounts | None
    external: PairCounts | None
    oracle: bool = False


def forest_figure(rows: list[ForestRow]) -> Markup | None:
    """Return C-indices with intervals; None where no pair was counted."""
    rows = [row for row in rows if _pairs(row.internal) or _pairs(row.external)]
    if not rows:
        return None
    with new_figure(7.6, 0.9 + 0.42 * len(rows)) as figure:
        panel = figure.subplots()
        for index, row in enumerate(rows):
            for pairs, shift, colour in (
                (row.internal, -0.13, INTERNAL),
                (row.external, 0.13, EXTERNAL),
            ):
                if pairs is not None and pairs.comparable:
                    _point(panel, pairs, index + shift, colour, row.oracle)
        panel.axvline(0.5, color=MUTED, lw=0.8, ls=":")
        panel.set_yticks(range(len(rows)), [row.label for row in rows])
        panel.tick_params(axis="y", length=0)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        low, high = panel.get_xlim()
        panel.set_xlim(min(low, 0.45), min(max(high, 0.8), 1.0))
        panel.set_xlabel("C-index (0.5 = chance, 1 = perfect ranking)")
        for label, colour in (("internal hold-out", INTERNAL), ("external", EXTERNAL)):
            panel.plot([], [], "o", color=colour, label=label)
        figure.legend(loc="outside upper center", ncols=2)
        return svg(figure, "forest", "C-index with 95 percent interval for each way of training")


def _pairs(pairs: PairCounts | None) -> bool:
    return pairs is not None and pairs.comparable > 0


def _point(panel: Any, pairs: PairCounts, height: float, colour: str, oracle: bool) -> None:
    low, high = pairs.interval()
    if np.isfinite(low):
        panel.plot([low, high], [height, height], color=colour, lw=1.6, solid_capstyle="butt")
    shape = {"marker": "D", "mfc": "white", "ms": 5.5} if oracle else {"marker": "o", "ms": 6}
    panel.plot([pairs.c_index], [height], color=colour, ls="", **shape)


def kaplan_meier_figure(tables: list[tuple[str, LifeTable]]) -> Markup | None:
    """Return one panel a set of hospitals, with numbers at risk below it."""
    tables = [(title, table) for title, table in tables if table.num_patients.any()]
    if not tables:
        return None
    rows = max(len(table.names) for _, table in tables)
    with new_figure(5.3 * len(tables), 3.5 + 0.2 * rows, gap=0.06) as figure:
        ratios = [3.2, 0.25 + 0.21 * rows]
        grid = figure.subplots(2, len(tables), squeeze=False, height_ratios=ratios)
        for (title, table), curves, numbers in zip(tables, grid[0], grid[1], strict=True):
            ticks = _month_ticks(table.grid_months[-1])
            styles = GROUPS.get(len(table.names)) or line_styles(len(table.names))
            _curves(curves, table, styles)
            curves.set_title(title)
            curves.set_xticks(ticks)
            curves.set_xlim(0, table.grid_months[-1])
            curves.set_ylim(0, 1.02)
            curves.set_xlabel("Months")
            _numbers(numbers, table, ticks, styles)
        grid[0][0].set_ylabel("Free of the event")
        return svg(figure, "kaplan-meier", "Kaplan-Meier curves by predicted risk group")


def _curves(panel: Any, table: LifeTable, styles: Any) -> None:
    for group, (name, (colour, dash)) in enumerate(zip(table.names, styles, strict=False)):
        if table.num_patients[group] == 0:
            continue
        curve = table.curve(group)
        panel.step(
            curve.months, curve.survival, where="post", color=colour, ls=dash, lw=1.8, label=name
        )
        panel.fill_between(
            curve.months, curve.lower, curve.upper, step="post", color=colour, alpha=0.13, lw=0
        )
    panel.legend(title="Predicted risk", loc="lower left")
    panel.grid(axis="y", lw=0.4, alpha=0.5)


def _numbers(panel: Any, table: LifeTable, ticks: list[float], styles: Any) -> None:
    panel.set_xlim(0, table.grid_months[-1])
    panel.set_ylim(len(table.names) - 0.4, -1.1)
    panel.axis("off")
    panel.text(0, -0.9, "At risk", fontsize=8.5, color=MUTED, va="center", ha="left")
    for group, (name, (colour, _)) in enumerate(zip(table.names, styles, strict=False)):
        label = panel.get_yaxis_transform()
        panel.text(
            -0.05, group, name, transform=label, color=colour, ha="right", va="center", fontsize=8.5
        )
        empty = table.num_patients[group] == 0
        for month in ticks:
            column = int(np.searchsorted(table.grid_months, month))
            text = "–" if empty else f"{table.at_risk[group, column]:.0f}"
            panel.text(month, group, text, ha="center", va="center", fontsize=8.5)


def _month_ticks(horizon: float) -> list[float]:
    step = next(step for step in (3, 6, 12, 24, 60, 120, 240) if horizon / step <= 6)
    return [float(month) for month in np.arange(0, horizon + 1e-9, step)]


def calibration_figure(parts: list[tuple[str, bool, Calibration]]) -> Markup | None:
    """Return observed against predicted risk, one panel a set of hospitals."""
    parts = [part for part in parts if part[2].table.num_patients.any()]
    if not parts:
        return None
    with new_figure(4.2 * len(parts), 3.9) as figure:
        panels = figure.subplots(1, len(parts), squeeze=False)[0]
        for panel, (title, external, sums) in zip(panels, parts, strict=True):
            _calibration(panel, sums, EXTERNAL if external else INTERNAL)
            panel.set_title(title)
            months = f"{sums.table.grid_months[-1]:g}"
            panel.set_xlabel(f"Predicted probability by month {months}")
            panel.set_ylabel(f"Observed by month {months}")
        return svg(figure, "calibration", "Observed against predicted probability of the event")


def _calibration(panel: Any, sums: Calibration, colour: str) -> None:
    x, (y, low, high) = sums.mean_predicted, sums.observed()
    known = np.isfinite(x) & np.isfinite(y)
    top = min(1.0, 1.1 * float(np.max([*x[known], *np.nan_to_num(high[known]), 0.1])))
    panel.plot([0, top], [0, top], color=MUTED, lw=0.9, ls="--")
    rows = zip(
        x[known], y[known], low[known], high[known], sums.table.num_patients[known], strict=True
    )
    for place, value, below, above, n in rows:
        panel.plot([place, place], [below, above], color=colour, lw=1.4)
        panel.plot([place], [value], "o", color=colour, ms=6)
        panel.text(place + 0.02 * top, value, f"{n:.0f}", fontsize=8, va="center", color=MUTED)
    panel.set_xlim(0, top)
    panel.set_ylim(0, top)
    panel.set_aspect("equal")
    panel.grid(lw=0.4, alpha=0.4)
