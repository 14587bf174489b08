"""The canonical unit of each covariate of the data dictionary, which both sides name alike."""

__all__ = ["UNITS"]

UNITS: dict[str, str] = {
    "age": "years",
    "sex": "1 = male, 0 = female",
    "bmi": "kg/m2",
    "height": "cm",
    "weight": "kg",
    "heart_rate": "bpm",
    "sbp": "mmHg",
    "qrs": "ms",
    "nyha": "class 1-4",
    "creatinine": "umol/L",
    "nt_probnp": "pg/mL",
    "diabetes": "0/1",
    "af": "0/1",
    "nsvt": "0/1",
    "lbbb": "0/1",
    "family_scd": "0/1",
}
