"""Exact federated Cox regression of Dialysis over its 67 centres, beside lifelines on the pool.

    python benchmarks/survival/cox_dialysis.py

Pure functions over 67 hospitals, without a network: coefficients, standard errors, log-likelihood,
rounds and seconds of the pooled and the site-stratified form. Then a minimum cell of 5: it costs
the stratified form its smallest hospitals, and the pooled form, where times must be moved together
hospital by hospital, its validity, which is why `grid_sums` refuses unless told otherwise.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter

from client.cox import SurvivalTable, grid_sums, stratified_sums
from client.cox_residuals import stratified_residuals
from protocol.errors import DataError
from protocol.stats import CoxSums, merge_all
from strategies.cox import CoxFit, fit
from strategies.cox_inference import coefficients, proportional_hazards_test

NAMES = ("age", "begin", "diabetes", "hypert", "other", "renal")
MONTHS = np.arange(1.0, 45.0)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
Ask = Callable[[np.ndarray], CoxSums]


def read(data: Path) -> pd.DataFrame:
    """Return one row a patient: covariates, months, event, centre."""
    raw = pd.read_csv(data / "survival" / "survset" / "Dialysis.csv")
    rows = pd.DataFrame({"age": raw["num_age"], "begin": raw["num_begin"]}, dtype=float)
    for disease in NAMES[2:]:
        rows[disease] = (raw["fac_disease"] == disease).astype(float)
    rows["months"], rows["event"], rows["centre"] = raw["time"], raw["event"], raw["fac_center"]
    return rows


def hospitals(rows: pd.DataFrame) -> list[SurvivalTable]:
    """Return one table a centre."""
    return [
        SurvivalTable.of(NAMES, part["months"], part["event"], part[list(NAMES)])
        for _, part in rows.groupby("centre")
    ]


def stratified(tables: Sequence[SurvivalTable], min_cell: int = 1) -> Ask:
    """Ask for the site-stratified likelihood."""
    return lambda beta: merge_all([stratified_sums(t, beta, min_cell=min_cell) for t in tables])


def pooled(tables: Sequence[SurvivalTable], min_cell: int = 1) -> Ask:
    """Ask for the pooled likelihood by months, with times moved where a rule needs it."""
    return lambda beta: merge_all(
        [grid_sums(t, beta, MONTHS, min_cell=min_cell, max_coarse_months=44.0) for t in tables]
    ).partial_likelihood("efron")


def may_answer(table: SurvivalTable, form: Callable[..., Ask]) -> bool:
    """Whether a hospital answers under a minimum cell of 5."""
    try:
        form([table], 5)(np.zeros(len(NAMES)))
    except DataError:
        return False
    return True


def compare(title: str, ask: Ask, reference: CoxPHFitter) -> CoxFit:
    """Fit, and print the table beside lifelines'."""
    begin = time.perf_counter()
    found = fit(ask, len(NAMES))
    seconds = time.perf_counter() - begin
    print(f"\n{title}: {found.rounds} rounds, {seconds:.2f} s")
    print(f"{'':10}{'coef':>11}{'lifelines':>11}{'se':>10}{'lifelines':>11}{'z':>8}{'p':>10}")
    errors = reference.standard_errors_
    for row in coefficients(found):
        print(
            f"{row.name:10}{row.beta:11.6f}{reference.params_[row.name]:11.6f}{row.se:10.6f}"
            f"{errors[row.name]:11.6f}{row.z:8.2f}{row.p:10.2e}"
        )
    likelihoods = found.at.log_likelihood, reference.log_likelihood_
    print("log-likelihood {:.6f}, lifelines {:.6f}".format(*likelihoods))
    gaps = [np.abs(found.beta - reference.params_.to_numpy()).max()]
    gaps.append(max(abs(r.se - e) for r, e in zip(coefficients(found), errors, strict=True)))
    print(f"largest difference: coefficient {gaps[0]:.1e}, standard error {gaps[1]:.1e}")
    return found


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CONCORS_DATA", DATA)))
    rows = read(parser.parse_args().data)
    tables = hospitals(rows)
    print(f"{len(rows)} patients, {rows['event'].sum()} deaths, {len(tables)} hospitals")
    exact = {"precision": 1e-12}
    pool = CoxPHFitter().fit(rows.drop(columns="centre"), "months", "event", fit_options=exact)
    strata = CoxPHFitter().fit(rows, "months", "event", strata=["centre"], fit_options=exact)
    compare("Pooled, grid of 44 months", pooled(tables), pool)
    own = compare("Stratified by hospital", stratified(tables), strata)
    residuals = [stratified_residuals(t, own.beta, min_cell=1) for t in tables]
    single, together = proportional_hazards_test(own, merge_all(residuals))
    print("proportional hazards (log t), p:", end=" ")
    print(", ".join(f"{n} {t.p:.3f}" for n, t in zip(NAMES, single, strict=True)), end="; ")
    print(f"all {together.p:.4f}")
    for title, form, reference in (("Pooled", pooled, pool), ("Stratified", stratified, strata)):
        answering = [table for table in tables if may_answer(table, form)]
        patients = sum(len(t) for t in answering)
        note = f"{title}, min_cell 5: {len(answering)} hospitals, {patients} patients answer"
        compare(note, form(answering, 5), reference)


if __name__ == "__main__":
    main()
