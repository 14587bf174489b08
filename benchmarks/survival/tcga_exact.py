"""Exact federated ridge Cox regression on TCGA-BRCA, stratified by region and pooled.

The penalty is chosen on the training patients alone, by leaving out one region at a time: nothing
in it is random, so the standard deviation over seeds is 0. The same fit with folds that the regions
draw for themselves says what a random choice of the penalty would add.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tcga_data import REGIONS, Tcga

from client.cox import SurvivalTable, assign_folds, grid_sums, stratified_sums
from protocol.stats import merge_all
from strategies.cox import Ask, fit
from strategies.cox_penalty import Penalty
from strategies.cox_validation import AskFold, cross_validate

FOLDS = 5
# From strong to weak, so that each fit starts from the one before.
PENALTIES = tuple(Penalty(strength) for strength in (0.3, 0.1, 0.03, 0.01, 0.003))
Form = Callable[[Sequence[SurvivalTable]], Ask]


@dataclass(frozen=True)
class Fit:
    """The test scores at one penalty."""

    penalty: Penalty
    score: np.ndarray
    rounds: int


def tables(data: Tcga) -> list[SurvivalTable]:
    """Return each region's table of those followed for a day at least."""
    parts = [region.followed() for region in data.training]
    return [SurvivalTable.of(data.names, p.months, p.event == 1, p.x) for p in parts]


def stratified(kept: Sequence[SurvivalTable]) -> Ask:
    """Ask for the region-stratified likelihood."""
    return lambda beta: merge_all([stratified_sums(t, beta, min_cell=1) for t in kept])


def pooled_on(grid: np.ndarray) -> Form:
    """Return the pooled likelihood on a grid."""
    return lambda kept: (
        lambda beta: merge_all(
            [grid_sums(t, beta, grid, min_cell=1) for t in kept]
        ).partial_likelihood("efron")
    )


def forms(parts: Sequence[SurvivalTable]) -> dict[str, Form]:
    """Return both forms by name; the pooled grid holds every time of an event."""
    times = np.unique(np.concatenate([table.months[table.event] for table in parts]))
    return {"stratified": stratified, "pooled": pooled_on(times)}


def _without_region(parts: Sequence[SurvivalTable], form: Form) -> AskFold:
    return lambda fold: form([t for region, t in enumerate(parts) if region != fold])


def _without_fold(parts: Sequence[SurvivalTable], form: Form, seed: int) -> AskFold:
    """Ask outside a fold that every region draws for itself."""
    rng = np.random.default_rng(seed)
    folds = [assign_folds(table, FOLDS, rng, min_cell=1) for table in parts]

    def ask(fold: int | None) -> Ask:
        if fold is None:
            return form(parts)
        return form([t.take(f != fold) for t, f in zip(parts, folds, strict=True)])

    return ask


def choose(parts: Sequence[SurvivalTable], form: Form) -> Penalty:
    """Return the penalty of the best likelihood on regions left out."""
    num_parameters = len(parts[0].names)
    return cross_validate(_without_region(parts, form), num_parameters, PENALTIES, REGIONS).best


def choose_by_folds(parts: Sequence[SurvivalTable], form: Form, seed: int) -> Penalty:
    """Return the penalty of the best likelihood on folds drawn from a seed."""
    num_parameters = len(parts[0].names)
    return cross_validate(_without_fold(parts, form, seed), num_parameters, PENALTIES, FOLDS).best


def fits(data: Tcga, parts: Sequence[SurvivalTable], form: Form) -> list[Fit]:
    """Return the fit to all regions at every penalty."""
    found = []
    for penalty in PENALTIES:
        one = fit(form(parts), len(data.names), penalty=penalty)
        found.append(Fit(penalty, data.test.x @ one.beta, one.rounds))
    return found
