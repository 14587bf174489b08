"""Loss per round and hospital."""

import numpy as np
from markupsafe import Markup

from server.report.style import line_styles, new_figure, svg
from server.results import ALL_TOGETHER, Results

__all__ = ["training_figure"]

TITLES = {
    "sort": "Sorting: cross-entropy",
    "segment": "Segmentation: Dice + cross-entropy",
    "prognosis": "Prognosis: survival loss",
}


def training_figure(results: Results) -> Markup | None:
    """Return one panel a stage, one line a hospital; None where nothing was trained."""
    stages = [stage for stage in TITLES if stage in results.training]
    if not stages:
        return None
    names = [hospital.name for hospital in results.hospitals]
    if any(ALL_TOGETHER in results.training[stage].loss for stage in stages):
        names.append(ALL_TOGETHER)
    styles = dict(zip(names, line_styles(len(names)), strict=True))
    with new_figure(5.2 * len(stages), 3.1) as figure:
        panels = figure.subplots(1, len(stages), squeeze=False)[0]
        for panel, stage in zip(panels, stages, strict=True):
            _draw(panel, results.training[stage].loss, styles)
            panel.set_title(TITLES[stage])
            panel.set_xlabel("Round")
        panels[0].set_ylabel("Mean training loss")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        return svg(figure, "training", "Training loss per round, one line for each hospital")


def _draw(panel: object, loss: dict, styles: dict[str, tuple[str, str]]) -> None:
    for name, (colour, dash) in styles.items():
        if name not in loss:
            continue
        values = np.array([np.nan if value is None else value for value in loss[name]])
        rounds = np.arange(1, len(values) + 1)
        mark = "o" if len(values) <= 30 else None
        panel.plot(  # type: ignore[attr-defined]
            rounds, values, color=colour, ls=dash, marker=mark, ms=3, lw=1.5, label=name
        )
    panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
    panel.grid(axis="y", lw=0.4, alpha=0.5)  # type: ignore[attr-defined]
