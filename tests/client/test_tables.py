"""The outcome table's file: both formats give the same rows, and each bound holds."""

from pathlib import Path

import pytest

from client.outcomes import read_outcomes
from client.site_sections import CovariateColumn, Outcomes
from client.tables import MAX_CELL_CHARS, read_table
from protocol.errors import DataError


def test_parquet_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "a.csv").write_text("id,fu,ev,age\nA1,12.5,1,60\nA2,3,0,\nA3,,,71.5\n")
    columns = {
        "id": ["A1", "A2", "A3"],
        "fu": [12.5, 3.0, None],
        "ev": pyarrow.array([True, False, None]),
        "age": [60.0, float("nan"), 71.5],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    covariates = {"age": CovariateColumn(column="age", unit="years")}
    found = [
        read_outcomes(
            tmp_path / name,
            Outcomes(path=name, patient="id", months="fu", event="ev"),
            covariates,
        )
        for name in ("a.csv", "a.parquet")
    ]
    assert repr(found[0]) == repr(found[1]) and found[0].rows["A1"].event == 1


@pytest.mark.parametrize("size", [0, 4, 40, 200])
def test_a_damaged_parquet_is_refused(tmp_path: Path, size: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": list("abc")}), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        read_table(path)


def test_a_parquet_that_unfolds_is_refused_unread(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    column = pyarrow.array(["x" * 2_000] * 200_000)
    parquet.write_table(
        pyarrow.table({"id": column}), path, compression="zstd", use_dictionary=False
    )
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="implausible size"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,a\n1," + "x" * (MAX_CELL_CHARS + 1), "line 2: a cell is longer than 4000"),
        ("id,a\n1," + "x" * 200_000, "line 2: a cell is longer than 4000"),
        ('id,a\n1,"open\n' + "2,b\n" * 50_000, "line 2: a cell is longer than 4000"),
        ("id," + "a," * 3_000 + "\n1", "line 1: a cell is longer than 4000 characters or the row"),
        ("id,a\n", "has no rows"),
        ("", "has no rows"),
        ("PK\0\0id,a\n1,2\n", "is not a text file"),
    ],
)
def test_bounds_of_a_csv(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_table(path)


def test_a_giant_table_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(DataError, match=r"a\.csv is larger than 64 MiB"):
        read_table(path)
