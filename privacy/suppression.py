"""Small counts stay at the hospital.

A count of 1 to k-1 patients points at persons; it is withheld. Where the total of a table is known,
one withheld cell is found by subtraction, so a second one is withheld with it (complementary
suppression; Hundepool et al., Statistical Disclosure Control, Wiley 2012, chapter 4.4).
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

__all__ = ["suppress_count", "suppress_counts"]

Key = TypeVar("Key", bound=Hashable)


def suppress_count(count: int, min_cell: int) -> int | None:
    """Return ``count``, or ``None`` where it is 1 to ``min_cell - 1``.

    Zero is told: it points at nobody, and a hospital without a vendor is no secret.

    Raises
    ------
    ValueError
        If the count is negative or ``min_cell`` is below 1.
    """
    if count < 0 or min_cell < 1:
        raise ValueError(f"count {count} and min_cell {min_cell} must be at least 0 and 1")
    return None if 0 < count < min_cell else count


def suppress_counts(
    counts: Mapping[Key, int], min_cell: int, *, total_known: bool = True
) -> dict[Key, int | None]:
    """Withhold the small cells of a table of disjoint groups, and what would give them away.

    Parameters
    ----------
    counts : mapping
        Patients by group; the groups share no patient.
    min_cell : int
        Smallest count above 0 that may be told.
    total_known : bool
        Whether the reader also learns the sum (told elsewhere, or told with the table). Then the
        withheld cells must sum to at least ``min_cell`` over at least two cells; further cells, the
        smallest first (ties in the order of the table), are withheld until they do.

    Returns
    -------
    dict
        The same groups in the same order; ``None`` where the count is withheld. Where every other
        cell is 0, a single small cell cannot be protected inside a table with a known total; then
        all cells are withheld, zeros included.
    """
    told = {group: suppress_count(count, min_cell) for group, count in counts.items()}
    withheld = [group for group, count in told.items() if count is None]
    if not withheld or not total_known:
        return told
    hidden_sum = sum(counts[group] for group in withheld)
    others = sorted((g for g in counts if told[g]), key=lambda group: counts[group])
    while len(withheld) < 2 or hidden_sum < min_cell:
        if not others:
            return dict.fromkeys(counts)
        group = others.pop(0)
        withheld.append(group)
        hidden_sum += counts[group]
        told[group] = None
    return told
