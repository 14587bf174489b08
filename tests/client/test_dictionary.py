"""One dictionary: units converted, missing kept missing."""

import math

import pytest

from client.dictionary import COVARIATES, convert, is_plausible
from protocol.errors import DataError


@pytest.mark.parametrize(
    ("name", "cell", "unit", "value"),
    [
        # 113.12 g/mol: 1 mg/dL = 10 mg/L = 88.4 umol/L.
        ("creatinine", "1.0", "mg/dL", 88.4),
        ("creatinine", "0,97", "mg/dL", 85.748),
        ("nt_probnp", "100", "pmol/L", 845.7),
        ("sbp", "16", "kPa", 120.00992),
        ("qrs", "0.139", "s", 139.0),
        ("height", "1.79", "m", 179.0),
        ("weight", "185", "lb", 83.91458845),
        ("sex", "Male", "sex", 1.0),
        ("sex", "f", "M/F", 0.0),
        ("nyha", "III", "class", 3.0),
        ("nyha", "2.0", "class", 2.0),
        ("diabetes", "yes", "yes/no", 1.0),
        ("af", "0", "0/1", 0.0),
    ],
)
def test_a_cell_becomes_the_canonical_unit(name: str, cell: str, unit: str, value: float) -> None:
    assert convert(name, cell, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "unknown", "."])
def test_missing_stays_missing(cell: str) -> None:
    for name, covariate in COVARIATES.items():
        assert math.isnan(convert(name, cell, next(iter(covariate.units))))


def test_the_canonical_unit_has_factor_one() -> None:
    for name, covariate in COVARIATES.items():
        assert 1.0 in covariate.units.values(), name
        assert is_plausible(name, covariate.low) and is_plausible(name, covariate.high)


@pytest.mark.parametrize(
    ("name", "cell", "sentence"),
    [
        ("age", "old", "not a number in years"),
        ("sex", "2", "not m, male, 1, f"),
        ("age", "inf", "age"),
    ],
)
def test_nonsense_is_refused_without_repeating_it(name: str, cell: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        convert(name, cell, next(iter(COVARIATES[name].units)))
