"""A table as the template draws it: labelled rows, columns in groups, external ones set apart."""

from dataclasses import dataclass
from itertools import groupby

__all__ = ["Column", "Row", "Table"]


@dataclass(frozen=True)
class Column:
    """One column; neighbours of one ``group`` share a heading above their own."""

    title: str
    group: str = ""
    external: bool = False


@dataclass(frozen=True)
class Row:
    """One row; a heading row has a label only."""

    label: str
    cells: tuple[str, ...] = ()
    heading: bool = False
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows, the label column not counted."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    corner: str = ""
    caption: str = ""

    @property
    def groups(self) -> list[tuple[str, int, bool]]:
        """Return (title, columns, external) of the headings above; empty where there are none."""
        if not any(column.group for column in self.columns):
            return []
        runs = groupby(self.columns, key=lambda column: (column.group, column.external))
        return [(title, len(list(run)), external) for (title, external), run in runs]
