"""Exact federated ridge Cox regression of TCGA-BRCA over FLamby's six regions and fixed split.

    python benchmarks/survival/cox_tcga.py

The penalty is chosen on the training patients alone, by leaving out one region at a time: nothing
in it is random, so the standard deviation over seeds is 0. Beside it, folds that the regions draw
for themselves, over five seeds. Published for this split (five seeds, pooled test C-index): FedAdam
.842 +- .017, FedAvg .735 +- .175, pooled deep training .704 +- .114.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines.utils import concordance_index

from client.cox import SurvivalTable, assign_folds, grid_sums, stratified_sums
from protocol.stats import merge_all
from strategies.cox import Ask, fit
from strategies.cox_penalty import Penalty
from strategies.cox_validation import AskFold, cross_validate

REGIONS = 6
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DAYS_A_MONTH = 365.25 / 12
FOLDS = 5
# From strong to weak, so that each fit starts from the one before.
STRENGTHS = (0.3, 0.1, 0.03, 0.01, 0.003)
REPLICATES = 1000
SEEDS = (0, 1, 2, 3, 4)
Form = Callable[[Sequence[SurvivalTable]], Ask]


def read(data: Path) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Return the training rows of each region and all test rows; covariates first."""
    folder = data / "survival" / "tcga_brca_6regions"
    split = pd.read_csv(folder / "train_test_split.csv")
    rows = pd.read_csv(folder / "brca.csv").merge(split, on="pid")
    training = [rows[rows["fold2"] == f"train_{region}"] for region in range(REGIONS)]
    return training, rows[rows["fold"] == "test"]


def standardised(
    training: Sequence[pd.DataFrame], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the common mean and deviation (P,), as hospitals' summed moments give them."""
    x = np.concatenate([rows[list(names)].to_numpy(float) for rows in training])
    return x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)


def pooled(tables: Sequence[SurvivalTable], grid: np.ndarray) -> Ask:
    """Ask for the pooled likelihood on a grid."""
    return lambda beta: merge_all(
        [grid_sums(t, beta, grid, min_cell=1) for t in tables]
    ).partial_likelihood("efron")


def stratified(tables: Sequence[SurvivalTable]) -> Ask:
    """Ask for the region-stratified likelihood."""
    return lambda beta: merge_all([stratified_sums(t, beta, min_cell=1) for t in tables])


def without_region(tables: Sequence[SurvivalTable], form: Form) -> AskFold:
    """Ask outside a region."""
    return lambda fold: form([t for region, t in enumerate(tables) if region != fold])


def without_fold(tables: Sequence[SurvivalTable], form: Form, seed: int) -> AskFold:
    """Ask outside a fold that every region draws for itself."""
    rng = np.random.default_rng(seed)
    folds = [assign_folds(table, FOLDS, rng, min_cell=1) for table in tables]

    def ask(fold: int | None) -> Ask:
        if fold is None:
            return form(tables)
        return form([t.take(f != fold) for t, f in zip(tables, folds, strict=True)])

    return ask


def interval(months: np.ndarray, event: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Return the test C-index and its bootstrap standard deviation."""
    rng, drawn = np.random.default_rng(1), []
    for _ in range(REPLICATES):
        pick = rng.integers(0, len(months), len(months))
        drawn.append(concordance_index(months[pick], -score[pick], event[pick]))
    return concordance_index(months, -score, event), float(np.std(drawn))


def report(
    tables: Sequence[SurvivalTable], test: tuple[np.ndarray, ...], title: str, form: Form
) -> None:
    """Print the test C-index at every penalty, and which one the training patients choose."""
    months, event, x = test
    found = {
        strength: fit(form(tables), x.shape[1], penalty=Penalty(strength)) for strength in STRENGTHS
    }
    begin = time.perf_counter()
    penalties = [Penalty(strength) for strength in STRENGTHS]
    choice = cross_validate(without_region(tables, form), x.shape[1], penalties, REGIONS).best
    seconds = time.perf_counter() - begin
    print(f"\n{title}: penalty {choice.strength} chosen without a region in {seconds:.1f} s")
    for strength, one in found.items():
        c, sd = interval(months, event, x @ one.beta)
        mark = "  <- chosen" if strength == choice.strength else ""
        print(f"  {strength:6g}  C {c:.4f}, bootstrap SD {sd:.3f}, {one.rounds} rounds{mark}")
    if title != "stratified":
        return
    drawn = [
        cross_validate(without_fold(tables, form, seed), x.shape[1], penalties, FOLDS).best
        for seed in SEEDS
    ]
    scores = [interval(months, event, x @ found[p.strength].beta)[0] for p in drawn]
    print(f"  folds drawn by the regions, seeds {SEEDS}: penalties {[p.strength for p in drawn]},")
    print(f"  C {np.mean(scores):.4f}, SD over seeds {np.std(scores):.4f}")


def main() -> None:
    """Print one table a form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CONCORS_DATA", DATA)))
    training, test = read(parser.parse_args().data)
    names = tuple(training[0].columns[1:40])
    mean, deviation = standardised(training, names)
    tables = []
    for rows in training:
        # Without a day of follow-up nobody is at risk at any event.
        seen = rows[rows["T"] > 0]
        x = (seen[list(names)].to_numpy(float) - mean) / deviation
        tables.append(SurvivalTable.of(names, seen["T"] / DAYS_A_MONTH, seen["E"] == 1, x))
    times = np.unique(np.concatenate([table.months[table.event] for table in tables]))
    held = (
        test["T"].to_numpy(float),
        test["E"].to_numpy(float),
        (test[list(names)].to_numpy(float) - mean) / deviation,
    )
    deaths = sum(table.num_events for table in tables)
    print(f"{sum(map(len, tables))} training patients, {deaths} deaths at {len(times)} times")
    print(f"{len(test)} test patients, {int(held[1].sum())} deaths")
    report(tables, held, "stratified", stratified)
    report(tables, held, "pooled", lambda kept: pooled(kept, times))


if __name__ == "__main__":
    main()
