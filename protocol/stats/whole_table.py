"""A life table whose groups make sense only together leaves whole or not at all."""

from protocol.stats.lifetable import LifeTable

__all__ = ["suppressed_whole"]


def suppressed_whole(table: LifeTable, min_cell: int) -> LifeTable:
    """Return `LifeTable.suppressed`, or the withheld table where that would withhold a group.

    `LifeTable.suppressed` hides small groups one by one. Where groups are compared (patients moved
    up against patients moved down, one cause of death against the others), a hospital that sent
    some of them would bias the comparison.
    """
    told = table.suppressed(min_cell, complementary=False)
    if (told.withheld == table.withheld).all():
        return told
    blank = LifeTable.empty(table.grid_months, table.names)
    return LifeTable(
        table.grid_months, table.names, blank.events, blank.censored, table.withheld + 1, 0.0
    )
