"""The Cox regression: one row a coefficient, and what the fit rests on."""

import math

from server.regression_results import ChiSquareTest, RegressionResults, RegressionRow
from server.report.cohort_table import label_of
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, number, p_value
from server.results import Results

__all__ = ["regression_note", "regression_table"]

TITLES = ("Hazard ratio", "95 % interval", "Coefficient", "SE", "Robust SE", "p", "p of drift")
# Beyond this a hazard ratio is no number a reader can use.
LARGEST_LOG = 50.0


def regression_table(results: Results) -> Table | None:
    """Return hazard ratios with intervals; None where no regression was fitted."""
    fitted = results.regression
    if fitted is None:
        return None
    units: dict[str, str] = {}
    for hospital in results.hospitals:
        units = {**hospital.units, **units}
    rows = tuple(Row(_label(row.name, units), _cells(row)) for row in fitted.rows)
    return Table(tuple(map(Column, TITLES)), rows)


def _label(name: str, units: dict[str, str]) -> str:
    covariate = name.removesuffix(" missing")
    label = label_of(covariate)
    if covariate != name:
        return f"{label} missing"
    unit = units.get(name, "")
    return f"{label}, {unit}" if unit else label


def _ratio(beta: float | None) -> float:
    return math.exp(beta) if beta is not None and abs(beta) < LARGEST_LOG else math.nan


def _cells(row: RegressionRow) -> tuple[str, ...]:
    return (
        number(_ratio(row.beta), 3),
        interval(_ratio(row.lower), _ratio(row.upper), 3),
        number(row.beta, 4),
        number(row.se, 4),
        number(row.robust_se, 4),
        _p(row.p),
        _p(row.drift_p),
    )


def _p(value: float | None) -> str:
    return DASH if value is None else p_value(value).removeprefix("= ")


def regression_note(results: Results) -> str:
    """Return what the regression is and what it rests on, in sentences; empty without one."""
    fitted = results.regression
    if fitted is None:
        return ""
    baseline = (
        "each hospital with a baseline hazard of its own (only summed gradients and Hessians left)"
        if fitted.form == "stratified"
        else "one baseline hazard (from risk-set sums on a common grid)"
    )
    note = (
        f"{fitted.patients:,} patients with {fitted.events:,} events at {len(fitted.hospitals)} "
        f"hospitals; {baseline}; {fitted.ties.capitalize()}'s ties; {fitted.rounds} questions; "
        f"partial log-likelihood {number(fitted.log_likelihood, 2)}."
    )
    return note + _moved(fitted) + _tests(fitted)


def _moved(fitted: RegressionResults) -> str:
    text = ""
    if fitted.coarse_months:
        text += f" Hospitals moved times together over up to {fitted.coarse_months:g} months."
    if fitted.imputations:
        text += (
            f" Missing values were imputed {fitted.imputations} times by chained equations and the "
            "fits pooled by Rubin's rules."
        )
    if fitted.penalty:
        text += f" Elastic net of strength {fitted.penalty:g}, lasso share {fitted.l1_ratio:g}."
    return text


def _tests(fitted: RegressionResults) -> str:
    names = {"likelihood_ratio": "Likelihood ratio", "proportional_hazards": "Drift of any ratio"}
    parts = [f"{title} {_test(fitted.tests[k])}" for k, title in names.items() if k in fitted.tests]
    return f" {'; '.join(parts)}." if parts else ""


def _test(test: ChiSquareTest) -> str:
    return f"χ² = {number(test.statistic, 1)} ({test.degrees} d.f.), p {p_value(test.p)}"
