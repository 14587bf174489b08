"""Tables of the hospital, CSV or Parquet, as rows of text; bounded before they are read.

Whatever is wrong is said with the file and the line, never with what stands in a cell.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import DataError

__all__ = ["MAX_CELL_CHARS", "MAX_ROWS", "MAX_TABLE_BYTES", "read_table"]

MAX_TABLE_BYTES = 64 << 20
MAX_ROWS, MAX_COLUMNS, MAX_CELL_CHARS = 1_000_000, 2_000, 4_000


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header, stripped, and the rows that are not empty.

    Parameters
    ----------
    path : Path
        CSV separated by comma, semicolon or tab; or Parquet, where the name ends in ``.parquet``.

    Raises
    ------
    DataError
        If the file cannot be read, is larger than bounds, or has no row.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if size > MAX_TABLE_BYTES:
        raise DataError(
            f"the outcome table {path.name} is larger than {MAX_TABLE_BYTES >> 20} MiB; "
            "export the columns that are needed."
        )
    parquet = path.suffix.lower() == ".parquet"
    header, rows = _parquet(path) if parquet else _csv(path)
    if not rows:
        raise DataError(f"the outcome table {path.name} has no rows; export it again.")
    return header, rows


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"the outcome table {path.name} cannot be read ({error.strerror}); "
        "check outcomes.path in site.yaml."
    )


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if b"\0" in data:
        raise DataError(f"the outcome table {path.name} is not a text file; export it as CSV.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    head = text.split("\n", 1)[0]
    # Spreadsheets of half of Europe separate by semicolons, because the comma is the decimal mark.
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    rows = list(_bounded(reader, path.name))
    if not rows:
        return [], []
    return [name.strip() for name in rows[0]], rows[1:]


def _bounded(reader: Iterator[list[str]], file: str) -> Iterator[list[str]]:
    line = 0
    try:
        for line, row in enumerate(reader, start=1):
            if len(row) > MAX_COLUMNS or any(len(cell) > MAX_CELL_CHARS for cell in row):
                raise _too_much(file, line)
            if line > MAX_ROWS:
                raise DataError(f"{file} has more than {MAX_ROWS} rows; export one row a patient.")
            if any(row):
                yield row
    except csv.Error:
        # The parser's own bound on a cell, or a quote that never ends.
        raise _too_much(file, line + 1) from None


def _too_much(file: str, line: int) -> DataError:
    return DataError(
        f"{file}, line {line}: a cell is longer than {MAX_CELL_CHARS} characters or the row has "
        f"more than {MAX_COLUMNS} cells; a quotation mark may be missing its pair."
    )


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DataError(
            "the outcome table is Parquet, which needs pyarrow; install concors[parquet] or export "
            "it as CSV."
        ) from None
    damaged = DataError(f"the outcome table {path.name} is damaged; export it again.")
    try:
        file = parquet.ParquetFile(path)
        meta = file.metadata
        # The footer states what the pages unfold to; checked before any page is read.
        unfolded = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if meta.num_rows > MAX_ROWS or meta.num_columns > MAX_COLUMNS:
            raise DataError(f"{path.name} has more than {MAX_ROWS} rows or {MAX_COLUMNS} columns.")
        if unfolded > MAX_TABLE_BYTES * 4:
            raise DataError(f"{path.name} unfolds to an implausible size; export it again.")
        columns = [column.to_pylist() for column in file.read().columns]
        names = [str(name).strip() for name in file.schema_arrow.names]
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged from error
    rows = [[_text(cell) for cell in row] for row in zip(*columns, strict=True)]
    for line, row in enumerate(rows, start=2):
        if any(len(cell) > MAX_CELL_CHARS for cell in row):
            raise _too_much(path.name, line)
    return names, [row for row in rows if any(row)]


def _text(cell: object) -> str:
    """A cell as CSV would write it: nothing for null and NaN, 1 for true, an ISO date for a day."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    return str(cell)
