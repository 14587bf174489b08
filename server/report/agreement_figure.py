"""Bland-Altman plots from binned tables: density, since no patient's point left a hospital."""

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgb

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
    with new_figure(2.75 * len(shown), 2.7 * len(rows)) as figure:
        strips = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for strip, (title, external, by_name) in zip(strips, rows, strict=True):
            colour = EXTERNAL if external else INTERNAL
            strip.suptitle(title, x=0.01, ha="left", fontsize=10.5, weight="bold", color=colour)
            panels = strip.subplots(1, len(shown), squeeze=False)[0]
            for panel, name in zip(panels, shown, strict=True):
                if name not in by_name:
                    panel.axis("off")
                    continue
                quantity = QUANTITIES[name]
                _draw(panel, by_name[name], quantity, colour)
                panel.set_title(quantity.label, fontsize=9, weight="normal")
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
    # One small picture instead of a thousand rectangles: light files, and no seams between cells.
    shade = np.zeros((columns, rows, 4))
    shade[..., :3] = to_rgb(colour)
    share = (sums.table / sums.table.max()).T
    shade[..., 3] = np.where(share > 0, 0.2 + 0.7 * share, 0)
    box = (*quantity.mean_range, *quantity.difference_range)
    panel.imshow(shade, extent=box, origin="lower", aspect="auto", interpolation="none", zorder=0)
    panel.set_xlim(left - margin, right + margin)
    panel.set_ylim(-1.2 * reach, 1.2 * reach)
    panel.axhline(0, color=MUTED, lw=0.6)
    for value, dash in ((sums.bias, "-"), (low, "--"), (high, "--")):
        if np.isfinite(value):
            panel.axhline(value, color=INK, lw=1.1, ls=dash)
            place = panel.get_yaxis_transform()
            text = number(value, 1)
            panel.text(0.99, value, text, transform=place, ha="right", va="bottom", fontsize=8)
