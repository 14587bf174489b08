"""Leave-one-hospital-out and the optimism of the regression, as tables."""

from collections.abc import Sequence
from typing import Any, Literal

from server.design_results import DesignRun, Optimism
from server.judgements import Overlap, Ranking
from server.report.matrix_figure import matrix_figure
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number
from server.results import Results
from shared_models.metrics.meta_analysis import MetaAnalysis, random_effects

__all__ = ["design_parts", "left_out_meta", "left_out_table", "optimism_table"]

Model = Literal["network", "regression"]
MODELS: dict[Model, str] = {"network": "Survival network", "regression": "Cox regression"}
RANKING = ("Patients", "Events", "C-index", "95 % interval")
OVERLAP = ("Masks", "Dice", "95 % interval")


def design_parts(results: Results) -> dict[str, Any]:
    """Return what the template draws of the designs; falsy where a design was not run."""
    designs = results.designs
    return {
        "left_out": left_out_table(designs.leave_one_out),
        "left_out_notes": _meta_notes(designs.leave_one_out),
        "design_gaps": _gaps(designs.leave_one_out, "left out")
        + _gaps(designs.matrix, "training alone"),
        "matrices": [
            (title, figure)
            for title, figure in (
                ("Survival network, C-index", matrix_figure(designs.matrix, "network")),
                ("Cox regression, C-index", matrix_figure(designs.matrix, "regression")),
                ("Segmentation network, Dice", matrix_figure(designs.matrix, "overlap")),
            )
            if figure is not None
        ],
        "optimism": optimism_table(designs.optimism),
        "optimism_reason": designs.optimism_reason,
    }


def left_out_table(runs: Sequence[DesignRun]) -> Table | None:
    """Return one row a hospital left out, and the hospitals' average; None without any."""
    models = [model for model in MODELS if any(_ranking(run, model) for run in runs)]
    overlap = any(run.name in run.overlap for run in runs)
    if not models and not overlap:
        return None
    columns = [Column(title, MODELS[model]) for model in models for title in RANKING]
    columns += [Column(title, "Segmentation") for title in OVERLAP] if overlap else []
    rows = []
    for run in runs:
        cells = [text for model in models for text in _ranking_cells(_ranking(run, model))]
        cells += _overlap_cells(run.overlap.get(run.name)) if overlap else []
        rows.append(Row(run.name, tuple(cells)))
    return Table(tuple(columns), (*rows, *_meta_rows(runs, models, overlap)), "Left out")


def _ranking(run: DesignRun, model: Model) -> Ranking | None:
    figures = run.network if model == "network" else run.regression
    return figures.get(run.name)


def _ranking_cells(figure: Ranking | None) -> tuple[str, ...]:
    if figure is None or figure.c_index is None:
        return (DASH,) * len(RANKING)
    counts = (f"{figure.patients:,}", f"{figure.events:,}")
    return (*counts, number(figure.c_index, 3), _limits(figure, 2))


def _overlap_cells(figure: Overlap | None) -> tuple[str, ...]:
    if figure is None or figure.dice is None:
        return (DASH,) * len(OVERLAP)
    return (f"{figure.patients:,}", number(figure.dice, 3), _limits(figure, 2))


def _limits(figure: Ranking | Overlap, digits: int) -> str:
    if figure.lower is None or figure.upper is None:
        return DASH
    return interval(figure.lower, figure.upper, digits)


def left_out_meta(runs: Sequence[DesignRun], model: Model) -> MetaAnalysis | None:
    """Return the C of the average hospital that never trained, on the logit scale.

    A hospital whose C is 0 or 1, or whose replicates do not vary, has no logit or no variance and
    is not in it; None where fewer than two are left.
    """
    figures = [figure for run in runs if (figure := _ranking(run, model)) is not None]
    usable = [
        (figure.c_index, figure.se**2)
        for figure in figures
        if figure.c_index is not None and 0 < figure.c_index < 1 and figure.se
    ]
    if len(usable) < 2:
        return None
    estimates, variances = zip(*usable, strict=True)
    return random_effects(estimates, variances, logit=True)


def _meta_rows(runs: Sequence[DesignRun], models: list[Model], overlap: bool) -> list[Row]:
    found = {model: left_out_meta(runs, model) for model in models}
    if not any(found.values()):
        return []
    average: list[str] = []
    ahead: list[str] = []
    for meta in found.values():
        if meta is None:
            average += [DASH] * len(RANKING)
            ahead += [DASH] * len(RANKING)
            continue
        average += ["", "", number(meta.estimate, 3), interval(meta.low, meta.high, 2)]
        ahead += ["", "", "", interval(meta.predicted_low, meta.predicted_high, 2)]
    rest = [""] * (len(OVERLAP) if overlap else 0)
    return [
        Row("Average hospital", (*average, *rest), strong=True),
        Row("A further hospital", (*ahead, *rest)),
    ]


def _meta_notes(runs: Sequence[DesignRun]) -> list[str]:
    notes = []
    for model, title in MODELS.items():
        meta = left_out_meta(runs, model)
        if meta is not None:
            notes.append(
                f"{title}: {meta.num_hospitals} hospitals, I² = {100 * meta.i_squared:.0f} %, "
                f"τ² = {number(meta.tau_squared, 3)} on the logit scale."
            )
    return notes


def _gaps(runs: Sequence[DesignRun], role: str) -> list[str]:
    return [f"{run.name}, {role}: {run.reason}" for run in runs if run.reason]


def optimism_table(found: Optimism | None) -> Table | None:
    """Return apparent, optimism and corrected C of the regression; None where not asked for."""
    if found is None:
        return None
    titles = ("Patients", "Events", "Apparent C", "Optimism", "Corrected C", "95 % interval")
    error = "" if found.optimism_se is None else f" ± {found.optimism_se:.4f}"
    limits = DASH
    if found.lower is not None and found.upper is not None:
        limits = interval(found.lower, found.upper, 3)
    cells = (
        f"{found.patients:,}",
        f"{found.events:,}",
        number(found.apparent, 4),
        f"{number(found.optimism, 4)}{error}",
        number(found.corrected, 4),
        limits,
    )
    failed = f", {found.failed} more failed" if found.failed else ""
    label = f"{found.replicates} resamples{failed}"
    return Table(tuple(map(Column, titles)), (Row(label, cells),))
