"""Who is asked in a round, and who has been heard so far: read from the history alone.

So a run that is resumed goes on as it would have gone on.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from protocol.seeds import generator

__all__ = ["counted_rounds", "last_weights", "whose_turn"]


def whose_turn(sites: Iterable[str], seed: int, stage: str, round_index: int) -> str:
    """Return the hospital of one round of cyclic weight transfer.

    Every hospital has its turn once in a cycle; the order of each cycle is drawn anew, so that no
    hospital always has the last word.

    Parameters
    ----------
    seed : int
        The study's seed.
    round_index : int
        Counted from 1.
    """
    names = sorted(sites)
    cycle, place = divmod(round_index - 1, len(names))
    order = generator(seed, f"{stage}/turns", round_index=cycle + 1).permutation(len(names))
    return names[order[place]]


def _weighed(history: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, int, float]]:
    for entry in history:
        for site, part in entry["sites"].items():
            if part["weight"] > 0:
                yield site, entry["round"], part["weight"]


def counted_rounds(history: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the last round in which each hospital's reply was counted; absent if none was."""
    return {site: number for site, number, _ in _weighed(history)}


def last_weights(history: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return what each hospital's last counted reply weighed."""
    return {site: weight for site, _, weight in _weighed(history)}
