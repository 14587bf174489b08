"""Bland-Altman plots from binned tables: density, since no patient's point left a hospital."""

from typing import Any

import numpy as np
from markupsafe import Markup

from protocol.stats import QUANTITIES, AgreementSums, Quantity
from server.report.style import EXTERNAL, INK, INTERNAL, MUTED, new_figure, svg
from server.report.text import number

__all__ = ["SHOWN", "agreement_figure"]

SHOWN = ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml", "lv_mass_g")


def agreement_figure(
    rows: list[tuple[str, bool, dict[str, AgreementSums]]],
) -> Markup | None:
    """Return a grid of plots.

    Parameters
    ----------
    rows : list of (title, is_external, sums by quantity)
        One row of plots each; rows without any sums are left out.
    """
    rows = [row for row in rows if row[2]]
    shown = [name for name in SHOWN if any(name in sums for _, _, sums in rows)]
    if not shown:
        return None
    with new_figure(2.75 * len(shown), 2.8 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(shown), squeeze=False)
        for panels, (title, external, by_name) in zip(grid, rows, strict=True):
            for panel, name in zip(panels, shown, strict=True):
                if name not in by_name:
                    panel.axis("off")
                    continue
                quantity = QUANTITIES[name]
                _draw(panel, by_name[name], quantity, EXTERNAL if external else INTERNAL)
                panel.set_title(f"{title}: {quantity.label}", fontsize=8.5)
                panel.set_xlabel(f"Mean of both ({quantity.unit})", fontsize=8.5)
                panel.set_ylabel(f"Difference ({quantity.unit})", fontsize=8.5)
        return svg(
            figure, "agreement", "Bland-Altman plots of measured against reference quantities"
        )


def _draw(panel: Any, sums: AgreementSums, quantity: Quantity, colour: str) -> None:
    rows, columns = sums.table.shape
    x = np.linspace(*quantity.mean_range, rows + 1)
    y = np.linspace(*quantity.difference_range, columns + 1)
    low, high = sums.limits
    filled = np.flatnonzero(sums.table.sum(axis=1))
    left, right = x[filled[0]], x[filled[-1] + 1]
    occupied = np.flatnonzero(sums.table.sum(axis=0))
    ends = [y[occupied[0]], y[occupied[-1] + 1], *np.nan_to_num([low, high])]
    reach = float(np.abs(ends).max())
    margin = max(0.15 * (right - left), x[1] - x[0])
    panel.set_xlim(left - margin, right + margin)
    panel.set_ylim(-1.2 * reach, 1.2 * reach)
    top = sums.table.max()
    for i, j in zip(*np.nonzero(sums.table), strict=True):
        shade = 0.25 + 0.65 * sums.table[i, j] / top
        panel.fill(
            x[[i, i + 1, i + 1, i]], y[[j, j, j + 1, j + 1]], color=colour, alpha=shade, lw=0
        )
    panel.axhline(0, color=MUTED, lw=0.6)
    for value, dash in ((sums.bias, "-"), (low, "--"), (high, "--")):
        if np.isfinite(value):
            panel.axhline(value, color=INK, lw=1.1, ls=dash)
            place = panel.get_yaxis_transform()
            text = number(value, 1)
            panel.text(0.99, value, text, transform=place, ha="right", va="bottom", fontsize=8)
