"""Small counts stay at the hospital.

A count of 1 to k-1 patients points at persons; it is withheld. Where the total of a table is known,
one withheld cell is found by subtraction, so a second one is withheld with it (complementary
suppression; Hundepool et al., Statistical Disclosure Control, Wiley 2012, chapter 4.4).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["suppress_count", "suppress_counts", "withheld_groups"]

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


def withheld_groups(counts: Mapping[Key, Sequence[int]], min_cell: int) -> set[Key]:
    """Return which groups of a partition must not be judged apart, the whole being known.

    A group is told with several counts of its patients (how many, how many with the event), and
    all of them are known of the whole. Nobody at all is no secret; of a group with anybody in it
    every count must be at least ``min_cell``, zero included: that none of the seven patients of a
    vendor had the event is a statement about each of them. What the whole minus the told groups
    leaves is a group as well, and is held to the same rule.

    Parameters
    ----------
    counts : mapping
        By group the number of patients first, then numbers of some of these patients; the groups
        share no patient.
    min_cell : int
        Smallest count that may be told.

    Returns
    -------
    set
        Small groups and, until those withheld together are at least two with ``min_cell`` in every
        count, further ones, the smallest first (ties in the order of the table); every group with
        patients where that cannot be reached.

    Raises
    ------
    ValueError
        If a count is negative or above the number of patients, or ``min_cell`` is below 1.
    """
    if min_cell < 1 or any(min(row) < 0 or max(row) > row[0] for row in counts.values()):
        raise ValueError(f"counts {dict(counts)} and min_cell {min_cell} are not possible")
    some = {group: row for group, row in counts.items() if row[0]}
    # With a minimum of 1 everything may be told, and a count of 0 is as good as any.
    if min_cell == 1:
        return set()
    withheld = [group for group, row in some.items() if min(row) < min_cell]
    others = sorted((g for g in some if g not in withheld), key=lambda group: some[group][0])
    while withheld and others:
        sums = [sum(column) for column in zip(*(some[g] for g in withheld), strict=True)]
        if len(withheld) > 1 and min(sums) >= min_cell:
            break
        withheld.append(others.pop(0))
    return set(withheld)
