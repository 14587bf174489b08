"""Defects of single hospitals: the real ones of the four UCI hospitals, and no false ones."""

import csv
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats.missingness import Missingness
from server.missingness import find_defects

SITES = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture(scope="module")
def uci(shared_data: Path) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    tables = {}
    for site in SITES:
        path = shared_data / "survival" / "uci_heart_4sites" / f"processed.{site}.data"
        with path.open(newline="") as stream:
            header, *rows = csv.reader(stream)
        values = [[np.nan if c in {"", "?"} else float(c) for c in row[:-1]] for row in rows if row]
        tables[site] = (tuple(header[:-1]), np.array(values))
    return tables


@pytest.mark.parametrize("min_cell", [1, 5, 10])
def test_the_swiss_cholesterol_and_the_missing_vessels_are_found(uci: dict, min_cell: int) -> None:
    counts = {site: Missingness.of(*table).suppressed(min_cell) for site, table in uci.items()}
    found = {(d.hospital, d.covariate): d.why for d in find_defects(counts)}
    assert found["switzerland", "chol"].startswith("0 in 100% of its known values")
    # A quarter of the Veterans' cholesterol is 0 as well, which nobody alive has.
    assert "0 may stand for missing" in found["va", "chol"]
    for site in ("hungarian", "switzerland", "va"):
        assert found[site, "ca"].startswith("missing in")
    assert ("cleveland", "ca") not in found
    assert not any(site == "cleveland" for site, _ in found)
    # ST depression and fasting sugar are 0 in many patients everywhere: that is what they are.
    assert not any(name == "oldpeak" for _, name in found)
    assert not any(name in {"sex", "exang"} for _, name in found)


def test_the_counts_are_those_of_the_files(uci: dict) -> None:
    swiss = Missingness.of(*uci["switzerland"])
    assert swiss.patients == 123
    assert int(swiss.zeros[swiss.names.index("chol")]) == 123
    assert int(swiss.missing[swiss.names.index("ca")]) == 118
    cleveland = Missingness.of(*uci["cleveland"])
    assert int(cleveland.missing[cleveland.names.index("ca")]) == 4


def test_a_constant_column_is_found_where_others_vary() -> None:
    rng = np.random.default_rng(0)
    varied = {f"h{k}": Missingness.of(("w",), rng.normal(70, 9, (50, 1))) for k in range(3)}
    filled = Missingness.of(("w",), np.full((40, 1), 70.0))
    defects = find_defects({**varied, "filled": filled})
    assert [(d.hospital, d.why) for d in defects] == [
        ("filled", "the same value in all its patients")
    ]


def test_laws_and_suppression() -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.uniform(size=(30, 2)) < 0.2, np.nan, rng.integers(0, 3, (30, 2)))
    a, b, c = (Missingness.of(("u", "v"), part) for part in np.array_split(values, 3))
    assert (a + b) + c == a + (b + c) == c + a + b
    assert a + Missingness.empty(("u", "v")) == a
    whole = Missingness.of(("u", "v"), values)
    assert (a + b + c).missing.tolist() == whole.missing.tolist()
    small = whole.suppressed(7)
    assert small.patients % 7 == 0 and not (small.missing % 7).any()
    assert a.suppressed(50) == Missingness.empty(("u", "v"))
    few = Missingness.of(("u",), np.array([[1.0], *[[np.nan]] * 9])).suppressed(5)
    assert (few.patients, int(few.missing[0]), int(few.constant[0])) == (10, 10, 0)
    assert Missingness.from_dict(whole.to_dict()) == whole
    with pytest.raises(PayloadError, match="different covariates"):
        a.merge(Missingness.empty(("u",)))
