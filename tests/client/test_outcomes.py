"""The outcome table: what is read, and one sentence for each way it can be wrong."""

import math
from pathlib import Path

import pytest

from client.outcomes import OutcomeTable, read_outcomes
from client.site_sections import CovariateColumn, Outcomes
from protocol.errors import DataError

COLUMNS = Outcomes(path="outcomes.csv", patient="id", months="fu", event="ev")
AGE = {"age": CovariateColumn(column="age", unit="years")}
CREATININE = {"creatinine": CovariateColumn(column="crea", unit="umol/L")}


def _read(folder: Path, text: str, covariates: dict[str, CovariateColumn]) -> OutcomeTable:
    path = folder / "outcomes.csv"
    path.write_text(text, encoding="utf-8")
    return read_outcomes(path, COLUMNS, covariates)


def test_rows_are_read(tmp_path: Path) -> None:
    table = _read(tmp_path, "id,fu,ev,age\nA1,12.5,1,60\nA2,0,0,\nA3,,,70\n", AGE)
    assert table.rows["A1"].months == 12.5 and table.rows["A1"].event == 1
    assert table.rows["A2"].months == 0.0 and math.isnan(table.rows["A2"].covariates["age"])
    assert table.rows["A3"].event == -1 and math.isnan(table.rows["A3"].months)


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    table = _read(tmp_path, "\ufeffid;fu;ev;age\nA1;12,5;1;60,5\n", AGE)
    assert table.rows["A1"].months == 12.5 and table.rows["A1"].covariates["age"] == 60.5


def test_an_impossible_value_becomes_missing_and_is_counted(tmp_path: Path) -> None:
    table = _read(tmp_path, "id,fu,ev,age\nA1,1,0,999\nA2,1,0,50\nA3,1,0,60\n", AGE)
    assert math.isnan(table.rows["A1"].covariates["age"]) and table.implausible == {"age": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,fu,ev\nA1,1,0\nA1,2,0\n", "line 3: this patient stands in the table twice"),
        ("id,fu,ev\nA1,-1,0\n", "line 2: the follow-up time is negative"),
        ("id,fu,ev\nA1,soon,0\n", "line 2: the follow-up time is not a number"),
        ("id,fu,ev\nA1,nan,0\n", "line 2: the follow-up time is not a number"),
        ("id,fu,ev\nA1,1,2\n", "line 2: the event is neither 0 nor 1"),
        ("id,fu,ev\nA1,1,dead\n", "line 2: the event is neither 0 nor 1"),
        ("id,fu,ev\n,1,0\n", "line 2: the patient column is empty"),
        ("id,fu,ev\nA1,1\n", "line 2: 2 cells under 3 headings"),
        ("id,months,ev\nA1,1,0\n", "has no column 'fu'; correct outcomes.months"),
        ("id,fu,ev,ev\nA1,1,0,0\n", "more than one column 'ev'"),
        ("id,fu,ev\n", "has no rows"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, text, {})
    assert sentence in caught.value.sentence
    assert "A1" not in caught.value.sentence


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"outcome table outcomes\.csv cannot be read"):
        read_outcomes(tmp_path / "outcomes.csv", COLUMNS, {})


def test_a_wrong_unit_is_caught_by_its_values(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"impossible in umol/L; correct covariates\.creatinine"):
        _read(tmp_path, "id,fu,ev,crea\nA1,1,0,0.9\nA2,1,0,1.1\nA3,1,0,80\n", CREATININE)


def test_a_covariate_that_is_no_number_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: covariate age holds a value that is not"):
        _read(tmp_path, "id,fu,ev,age\nA1,1,0,sixty\n", AGE)


DATES = Outcomes.model_validate(
    {
        "path": "outcomes.csv",
        "patient": "id",
        "dates": {"cmr": "scan", "last_contact": "seen", "event": "died", "order": "dmy"},
    }
)


def _dated(folder: Path, cells: str, order: str = "dmy") -> OutcomeTable:
    path = folder / "outcomes.csv"
    path.write_text(f"id;scan;seen;died\n{cells}\n", encoding="utf-8")
    assert DATES.dates is not None
    dates = DATES.dates.model_copy(update={"order": order})
    return read_outcomes(path, DATES.model_copy(update={"dates": dates}), {})


def test_dates_become_intervals_and_are_not_kept(tmp_path: Path) -> None:
    cells = (
        "A;01.03.2019;01.03.2020;\nB;1.3.2019;31.12.2020;01.03.2021\nC;01.03.2019;;\nD;;1.1.2020;"
    )
    table = _dated(tmp_path, cells)
    # 366 days hold the 29 February 2020; 731 days are two years and the leap day.
    assert table.rows["A"].months == pytest.approx(366 / 30.436875)
    assert table.rows["A"].event == 0
    assert table.rows["B"].months == pytest.approx(731 / 30.436875)
    assert table.rows["B"].event == 1
    assert [table.rows[who].event for who in "CD"] == [-1, -1]
    assert "2019" not in repr(table) and "datetime" not in repr(table)


@pytest.mark.parametrize(("order", "cell"), [("ymd", "2019-03-02"), ("ymd", "20190302"),
    ("mdy", "03/02/2019"), ("dmy", "2.3.2019"), ("ymd", "2019-03-02 00:00:00")])  # fmt: skip
def test_one_day_in_every_order(tmp_path: Path, order: str, cell: str) -> None:
    assert _dated(tmp_path, f"A;{cell};{cell};", order).rows["A"].months == 0.0


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ("A;03.31.2019;01.03.2020;", "line 2: a date is not written as outcomes.dates.order"),
        ("A;1.3.19;01.03.2020;", "line 2: a date is not written"),
        ("A;about Easter 1933;01.03.2020;", "line 2: a date is not written"),
        ("A;01.03.2019;01.03.2018;", "line 2: follow-up ends before the CMR"),
    ],
)
def test_a_wrong_date_is_not_quoted(tmp_path: Path, cells: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        _dated(tmp_path, cells)
    assert not any(part in caught.value.sentence for part in ("2019", "2018", "1.3", "1933"))


def test_dates_and_months_exclude_each_other() -> None:
    for wrong in (
        {"path": "a", "patient": "b"},
        {"path": "a", "patient": "b", "months": "c"},
        DATES.model_dump() | {"months": "c", "event": "d"},
    ):
        with pytest.raises(ValueError, match="dates"):
            Outcomes.model_validate(wrong)
