"""Rounds, curves and figures of a run: pure functions of its history and its results."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from server.results import ALL_TOGETHER, Results
from server.watching.state import Curve, Figure, RoundState

__all__ = ["MEGABYTE", "curves", "figures", "rounds", "spent"]

MEGABYTE = 2**20
Entries = Iterable[Mapping[str, Any]]
# What is no measure of how training goes is told elsewhere.
BUDGET = frozenset({"epsilon", "delta"})
DICE = {"LV": "Dice, LV cavity", "MYO": "Dice, myocardium", "RV": "Dice, RV cavity"}


def _megabytes(value: Any) -> float | None:
    """Return bytes in MB; a number for all hospitals together, or one each."""
    if isinstance(value, Mapping):
        value = sum(value.values())
    return value / MEGABYTE if isinstance(value, int | float) else None


def rounds(history: Entries) -> tuple[RoundState, ...]:
    """Return the finished rounds of one stage."""
    return tuple(
        RoundState(
            stage=entry["stage"],
            number=entry["round"],
            seconds=entry["seconds"],
            counted=len(entry["sites"]),
            left_out=tuple(sorted(set(entry["excluded"]) - set(entry["sites"]))),
            mb_down=_megabytes(entry.get("bytes_down")),
            mb_up=_megabytes(entry.get("bytes_up")),
            update_norm=entry["update_norm"],
        )
        for entry in history
    )


def _metrics(entry: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return by hospital what it told of a round; where only sums were seen, of all together."""
    if "together" in entry:
        return {ALL_TOGETHER: entry["together"].get("metrics", {})}
    return {site: part["metrics"] for site, part in entry["sites"].items()}


def curves(stage: str, history: Entries) -> tuple[Curve, ...]:
    """Return every metric of every hospital of one stage, by round; metrics in the same order."""
    told = [_metrics(entry) for entry in history]
    pairs = {(m, site) for each in told for site, part in each.items() for m in part}
    return tuple(
        Curve(
            stage=stage,
            metric=metric,
            hospital=site,
            values=tuple(each.get(site, {}).get(metric) for each in told),
        )
        for metric, site in sorted(pairs)
        if metric not in BUDGET
    )


def spent(history: Entries) -> dict[str, tuple[float, float | None]]:
    """Return by hospital the newest (epsilon, delta) that it let be seen.

    Where hospitals are summed, what the training costs each of them stands under `ALL_TOGETHER`.
    """
    found: dict[str, tuple[float, float | None]] = {}
    for entry in history:
        together = entry.get("together", {})
        if "epsilon" in together:
            found[ALL_TOGETHER] = (together["epsilon"], together.get("delta"))
        for site, part in entry["sites"].items():
            if "epsilon" in part["metrics"]:
                found[site] = (part["metrics"]["epsilon"], part["metrics"].get("delta"))
    return found


def figures(results: Results | None) -> tuple[Figure, ...]:
    """Return the federated models' Dice and C-index at every hospital that judged them."""
    if results is None or "federated" not in results.arms:
        return ()
    found = []
    for site, part in results.arms["federated"].sites.items():
        for name, title in DICE.items():
            if part.overlap is not None and name in part.overlap.classes:
                found.append(Figure(title, site, part.overlap.pooled_mean("dice", name)))
        if part.pairs is not None and part.pairs.comparable:
            found.append(Figure("C-index", site, part.pairs.c_index))
    return tuple(figure for figure in found if not math.isnan(figure.value))
