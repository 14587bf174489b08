"""How the penalty of the Cox regression was chosen: one row a candidate."""

from server.report.table import Column, Row, Table
from server.report.text import number
from server.results import Results

__all__ = ["penalty_table"]


def penalty_table(results: Results) -> Table | None:
    """Return each candidate's cross-validated likelihood, the chosen one strong; None without."""
    fitted = results.regression
    if fitted is None or fitted.penalty_curve is None:
        return None
    curve = fitted.penalty_curve
    rows = tuple(
        Row(
            f"{strength:.3g}",
            (number(score, 3), number(error, 3), "chosen" if strength == fitted.penalty else ""),
            strong=strength == fitted.penalty,
        )
        for strength, score, error in zip(
            curve.strengths, curve.scores, curve.standard_errors, strict=True
        )
    )
    what = "shares of each hospital's patients" if curve.fold_by == "patients" else "one hospital"
    caption = f"Cross-validation in {curve.folds} folds, each {what}."
    if curve.fold_by == "patients":
        caption = f"Cross-validation in {curve.folds} folds: {what}."
    titles = ("Cross-validated log-likelihood", "SE over folds", "")
    return Table(tuple(map(Column, titles)), rows, corner="Penalty", caption=caption)
