"""The consortium's data dictionary: one name, one unit and one plausible range per covariate.

A hospital states its column and its unit in ``site.yaml``; here a cell becomes a number in the
canonical unit. An empty cell, or one that says it is unknown, stays missing (NaN): nothing is
imputed at the door. A study may use covariates of its own beside these (``gene_12``): they are
taken "as is", so the consortium must agree on their unit itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.errors import DataError
from protocol.units import UNITS

__all__ = ["AS_IS", "COVARIATES", "Covariate", "convert", "covariate", "is_plausible"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "unknown", "missing", ".", "-", "?"})
SEX = {"m": 1.0, "male": 1.0, "1": 1.0, "f": 0.0, "female": 0.0, "0": 0.0, "w": 0.0}
FLAG = {"1": 1.0, "yes": 1.0, "true": 1.0, "y": 1.0, "0": 0.0, "no": 0.0, "false": 0.0, "n": 0.0}
NYHA = {"i": 1.0, "ii": 2.0, "iii": 3.0, "iv": 4.0, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0}


@dataclass(frozen=True)
class Covariate:
    """One entry of the dictionary.

    Attributes
    ----------
    unit : str
        The canonical unit.
    units : mapping of str to float
        Units a hospital may use, and the factor to the canonical one.
    low, high : float
        Values outside are taken for errors of typing or of unit, in the canonical unit.
    words : mapping of str to float
        Words that stand for values; if given, nothing else is accepted.
    """

    unit: str
    units: Mapping[str, float]
    low: float
    high: float
    words: Mapping[str, float] = field(default_factory=dict)


def _flag() -> Covariate:
    return Covariate("0/1", {"0/1": 1.0, "flag": 1.0, "yes/no": 1.0}, 0, 1, FLAG)


# Creatinine: molar mass 113.12 g/mol, so 1 mg/dL = 88.4 umol/L. NT-proBNP: 8,457 g/mol, so
# 1 pmol/L = 8.457 pg/mL. 1 kPa = 7.50062 mmHg.
COVARIATES: dict[str, Covariate] = {
    "age": Covariate(UNITS["age"], {"years": 1.0, "months": 1 / 12}, 0, 120),
    "sex": Covariate(UNITS["sex"], {"sex": 1.0, "M/F": 1.0, "0/1": 1.0}, 0, 1, SEX),
    "bmi": Covariate(UNITS["bmi"], {"kg/m2": 1.0, "kg/m^2": 1.0}, 10, 80),
    "height": Covariate(UNITS["height"], {"cm": 1.0, "m": 100.0}, 50, 250),
    "weight": Covariate(UNITS["weight"], {"kg": 1.0, "lb": 0.45359237}, 20, 350),
    "heart_rate": Covariate(UNITS["heart_rate"], {"bpm": 1.0, "1/min": 1.0, "Hz": 60.0}, 20, 250),
    "sbp": Covariate(UNITS["sbp"], {"mmHg": 1.0, "kPa": 7.50062}, 40, 300),
    "qrs": Covariate(UNITS["qrs"], {"ms": 1.0, "s": 1000.0}, 40, 300),
    "nyha": Covariate(UNITS["nyha"], {"class": 1.0, "class 1-4": 1.0, "1-4": 1.0}, 1, 4, NYHA),
    "creatinine": Covariate(UNITS["creatinine"], {"umol/L": 1.0, "mg/dL": 88.4}, 15, 2500),
    "nt_probnp": Covariate(
        UNITS["nt_probnp"], {"pg/mL": 1.0, "ng/L": 1.0, "pmol/L": 8.457}, 1, 300_000
    ),
    "diabetes": _flag(),
    "af": _flag(),
    "nsvt": _flag(),
    "lbbb": _flag(),
    "family_scd": _flag(),
}

AS_IS = "as is"
UNDECLARED = Covariate(AS_IS, {AS_IS: 1.0}, -math.inf, math.inf)


def covariate(name: str) -> Covariate:
    """Return the dictionary's entry, or one that takes any number for a study's own covariate."""
    return COVARIATES.get(name, UNDECLARED)


def convert(name: str, cell: str, unit: str) -> float:
    """Return one cell in the canonical unit of ``name``; NaN where it is missing.

    Parameters
    ----------
    name : str
        Canonical name, a key of `COVARIATES`, or a name of the study's own.
    cell : str
        The cell as written; a decimal comma is accepted.
    unit : str
        The hospital's unit, a key of the covariate's ``units``.

    Raises
    ------
    DataError
        If the cell is neither a number nor one of the words this covariate knows.
    """
    text = cell.strip()
    entry = covariate(name)
    if text.lower() in MISSING:
        return math.nan
    if entry.words:
        # A spreadsheet writes a class of 2 as "2.0".
        word = text.lower().removesuffix(".0")
        if word in entry.words:
            return entry.words[word]
    else:
        number = _number(text)
        if number is not None:
            return number * entry.units[unit]
    expected = (
        ", ".join(entry.words)
        if entry.words
        else f"a number in {unit}".removesuffix(f" in {AS_IS}")
    )
    raise DataError(f"covariate {name} holds a value that is not {expected}; correct the cell.")


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", ".", 1) if "." not in text else text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_plausible(name: str, value: float) -> bool:
    """Return whether a value (canonical unit, not NaN) lies in the covariate's plausible range."""
    entry = covariate(name)
    return entry.low <= value <= entry.high
