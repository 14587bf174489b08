"""How hospitals write the same record: column names, units, codes, decimal marks."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["RECORD_STYLES", "Column", "RecordStyle", "write_records"]


@dataclass(frozen=True)
class Column:
    """A column of ``outcomes.csv``.

    Attributes
    ----------
    unit : str
        A unit of the consortium's data dictionary.
    factor : float
        Canonical value times this is what is written.
    digits : int
        Decimals written.
    words : dict
        Written instead of the number.
    """

    name: str
    unit: str
    factor: float = 1.0
    digits: int = 0
    words: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordStyle:
    """One hospital's table; ``columns`` by canonical name, only what the hospital has."""

    patient: str
    months: str
    event: str
    columns: Mapping[str, Column]
    delimiter: str = ","
    decimal_mark: str = "."


SEX_WORDS = {1.0: "M", 0.0: "F"}
ROMAN = {1.0: "I", 2.0: "II", 3.0: "III", 4.0: "IV"}
YES_NO = {1.0: "yes", 0.0: "no"}

RECORD_STYLES: Mapping[str, RecordStyle] = {
    "plain": RecordStyle(
        "patient", "months", "event",
        {
            "age": Column("age", "years"),
            "sex": Column("sex", "sex"),
            "bmi": Column("bmi", "kg/m2", digits=1),
            "heart_rate": Column("heart_rate", "bpm"),
            "sbp": Column("sbp", "mmHg"),
            "qrs": Column("qrs", "ms"),
            "nyha": Column("nyha", "class"),
            "creatinine": Column("creatinine", "umol/L"),
            "nt_probnp": Column("nt_probnp", "pg/mL"),
            "diabetes": Column("diabetes", "0/1"),
            "af": Column("af", "0/1"),
            "nsvt": Column("nsvt", "0/1"),
            "lbbb": Column("lbbb", "0/1"),
            "family_scd": Column("family_scd", "0/1"),
        },
    ),
    "american": RecordStyle(
        "MRN", "FU_MONTHS", "SCD_EVENT",
        {
            "age": Column("AGE_AT_SCAN", "years"),
            "sex": Column("SEX", "M/F", words=SEX_WORDS),
            "height": Column("HEIGHT_M", "m", 0.01, 2),
            "weight": Column("WEIGHT_LB", "lb", 1 / 0.45359237),
            "heart_rate": Column("HR", "bpm"),
            "sbp": Column("SBP_MMHG", "mmHg"),
            "qrs": Column("QRS_MS", "ms"),
            "nyha": Column("NYHA", "class", words=ROMAN),
            "creatinine": Column("CREAT_MG_DL", "mg/dL", 1 / 88.4, 2),
            "nt_probnp": Column("NTPROBNP", "pg/mL"),
            "diabetes": Column("DM", "yes/no", words=YES_NO),
            "af": Column("AFIB", "yes/no", words=YES_NO),
            "nsvt": Column("NSVT", "yes/no", words=YES_NO),
            "lbbb": Column("LBBB", "yes/no", words=YES_NO),
        },
    ),
    "german": RecordStyle(
        "Patientennummer", "Nachbeobachtung_Monate", "Ereignis",
        {
            "age": Column("Alter", "years"),
            "sex": Column("Geschlecht", "M/F", words={1.0: "m", 0.0: "w"}),
            "height": Column("Groesse_cm", "cm"),
            "weight": Column("Gewicht_kg", "kg"),
            "heart_rate": Column("Herzfrequenz", "bpm"),
            "sbp": Column("RR_sys", "mmHg"),
            "qrs": Column("QRS_s", "s", 0.001, 3),
            "nyha": Column("NYHA", "class", words=ROMAN),
            "creatinine": Column("Kreatinin", "mg/dL", 1 / 88.4, 2),
            "nt_probnp": Column("NTproBNP", "ng/L"),
            "diabetes": Column("Diabetes", "0/1"),
            "af": Column("Vorhofflimmern", "0/1"),
            "nsvt": Column("nsVT", "0/1"),
            "lbbb": Column("LSB", "0/1"),
            "family_scd": Column("Familienanamnese", "0/1"),
        },
        ";", ",",
    ),
    "italian": RecordStyle(
        "codice", "mesi", "evento",
        {
            "age": Column("eta", "years"),
            "sex": Column("sesso_maschio", "0/1"),
            "bmi": Column("bmi", "kg/m2", digits=1),
            "heart_rate": Column("fc", "bpm"),
            "sbp": Column("pas_kpa", "kPa", 1 / 7.50062, 1),
            "qrs": Column("qrs", "ms"),
            "nyha": Column("nyha", "class"),
            "creatinine": Column("creatinina", "umol/L"),
            "nt_probnp": Column("ntprobnp_pmol", "pmol/L", 1 / 8.457, 1),
            "diabetes": Column("diabete", "0/1"),
            "af": Column("fa", "0/1"),
            "nsvt": Column("tvns", "0/1"),
            "lbbb": Column("bbsx", "0/1"),
            "family_scd": Column("familiarita", "0/1"),
        },
    ),
    "spanish": RecordStyle(
        "nhc", "seguimiento_meses", "evento",
        {
            "age": Column("edad", "years"),
            "sex": Column("sexo", "M/F", words=SEX_WORDS),
            "bmi": Column("imc", "kg/m2", digits=1),
            "heart_rate": Column("fc", "bpm"),
            "sbp": Column("tas", "mmHg"),
            "qrs": Column("qrs_ms", "ms"),
            "nyha": Column("nyha", "class"),
            "creatinine": Column("creatinina", "mg/dL", 1 / 88.4, 2),
            "nt_probnp": Column("nt_probnp", "pg/mL"),
            "af": Column("fa", "0/1"),
            "nsvt": Column("tvns", "0/1"),
            "lbbb": Column("bri", "0/1"),
            "family_scd": Column("ms_familiar", "0/1"),
        },
    ),
}  # fmt: skip


def _cell(column: Column, value: float, decimal_mark: str) -> str:
    if column.words:
        return column.words[value]
    return f"{value * column.factor:.{column.digits}f}".replace(".", decimal_mark)


def write_records(
    style: RecordStyle,
    patient_ids: Sequence[str],
    records: Sequence[Mapping[str, float]],
    outcomes: Sequence[tuple[float, int]],
    missing_rate: float,
    rng: np.random.Generator,
) -> str:
    """Return the table as text, with a share ``missing_rate`` of covariate cells left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=style.delimiter, lineterminator="\n")
    columns = style.columns
    header = [style.patient, *(column.name for column in columns.values())]
    writer.writerow([*header, style.months, style.event])
    empty = rng.random((len(patient_ids), len(columns))) < missing_rate
    for row, (patient, record, (months, event)) in enumerate(
        zip(patient_ids, records, outcomes, strict=True)
    ):
        cells = [
            "" if empty[row, index] else _cell(column, record[name], style.decimal_mark)
            for index, (name, column) in enumerate(columns.items())
        ]
        follow_up = f"{months:.1f}".replace(".", style.decimal_mark)
        writer.writerow([patient, *cells, follow_up, event])
    return buffer.getvalue()
