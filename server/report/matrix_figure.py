"""The hospital x hospital matrix: who trained against who judged, as a coloured table."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from server.design_results import DesignRun
from server.judgements import Overlap, Ranking
from server.report.style import INK, MUTED, new_figure, svg

__all__ = ["matrix_figure"]

Kind = Literal["network", "regression", "overlap"]
# Beyond this many hospitals a cell has no room for two numbers.
MOST_WRITTEN = 14
# Colour from chance, or no overlap worth having, to what no model reaches.
RANGE: dict[Kind, tuple[float, float]] = {
    "network": (0.5, 0.9),
    "regression": (0.5, 0.9),
    "overlap": (0.5, 1.0),
}


def matrix_figure(runs: Sequence[DesignRun], kind: Kind) -> Markup | None:
    """Return one square a pair: the model of the row's hospital at the column's patients.

    Parameters
    ----------
    kind : {"network", "regression", "overlap"}
        C-index of the survival network or of the Cox regression, or mean Dice.

    Returns
    -------
    Markup or None
        ``None`` where no pair was judged.
    """
    figures: list[Mapping[str, Ranking | Overlap]] = [_figures(run, kind) for run in runs]
    judges = _judges(runs, figures)
    if not judges:
        return None
    values = np.full((len(runs), len(judges)), np.nan)
    for row, found in enumerate(figures):
        for column, site in enumerate(judges):
            value = _value(found.get(site))
            values[row, column] = np.nan if value is None else value
    if not np.isfinite(values).any():
        return None
    side = 0.74 if len(judges) <= MOST_WRITTEN else 0.2
    name = "Dice" if kind == "overlap" else "C-index"
    with new_figure(2.2 + side * len(judges), 1.5 + 0.62 * side * len(runs)) as figure:
        panel = figure.subplots()
        low, high = RANGE[kind]
        image = panel.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        panel.set_yticks(range(len(runs)), [run.name for run in runs])
        panel.set_xticks(range(len(judges)), judges, rotation=45, ha="left")
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.set_ylabel("trained alone at")
        panel.set_xlabel("judged at")
        panel.set_facecolor("#eceff2")
        if len(judges) <= MOST_WRITTEN:
            _write(panel, figures, judges, (low + high) / 2)
        figure.colorbar(image, ax=panel, label=name, shrink=0.8, extend="both")
        return svg(figure, f"matrix-{kind}", f"{name} of every hospital's model at each hospital")


def _figures(run: DesignRun, kind: Kind) -> Mapping[str, Ranking | Overlap]:
    if kind == "overlap":
        return run.overlap
    return run.network if kind == "network" else run.regression


def _judges(
    runs: Sequence[DesignRun], figures: Sequence[Mapping[str, Ranking | Overlap]]
) -> list[str]:
    """Return the judging hospitals: those that train first, in the same order as the rows."""
    judged = dict.fromkeys(site for found in figures for site in found)
    training = [run.name for run in runs if run.name in judged]
    return [*training, *(site for site in judged if site not in training)]


def _value(figure: Ranking | Overlap | None) -> float | None:
    if figure is None:
        return None
    return figure.c_index if isinstance(figure, Ranking) else figure.dice


def _write(
    panel: Any,
    figures: Sequence[Mapping[str, Ranking | Overlap]],
    judges: Sequence[str],
    middle: float,
) -> None:
    for row, found in enumerate(figures):
        for column, site in enumerate(judges):
            figure, value = found.get(site), _value(found.get(site))
            if figure is None or value is None:
                panel.text(column, row, "–", ha="center", va="center", color=MUTED)
                continue
            colour = INK if value > middle else "white"
            text = f"{value:.2f}\n{figure.patients:,}"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
