"""Between which values a mean is noised: ranges that anybody could write down without a patient.

Not those of the data dictionary, beyond which a value is taken for an error of typing: noise grows
with the width of the range, and NT-proBNP of 300,000 is possible but rare. What lies beyond counts
as if it lay at the end, so a study of unlike patients states its own (``ranges``). A study's choice
cannot weaken privacy: whatever the range is, one patient adds at most one unit.
"""

from collections.abc import Sequence

from protocol.config import Study
from protocol.errors import PrivacyError

__all__ = ["PUBLIC_RANGES", "public_ranges", "usual_ranges"]

FLAG = (0.0, 1.0)
# Covariates in the units of the data dictionary, then measurements in the units of their names:
# what adults referred to cardiac MR commonly have.
PUBLIC_RANGES: dict[str, tuple[float, float]] = {
    "age": (18, 95),
    "sex": FLAG,
    "bmi": (15, 50),
    "height": (140, 205),
    "weight": (40, 150),
    "heart_rate": (40, 130),
    "sbp": (80, 200),
    "qrs": (60, 200),
    "nyha": (1, 4),
    "creatinine": (40, 300),
    "nt_probnp": (5, 10_000),
    "diabetes": FLAG,
    "af": FLAG,
    "nsvt": FLAG,
    "lbbb": FLAG,
    "family_scd": FLAG,
    "lv_edv_ml": (50, 400),
    "lv_esv_ml": (10, 320),
    "lv_sv_ml": (20, 180),
    "lv_ef_percent": (5, 85),
    "lv_mass_g": (40, 300),
    "rv_edv_ml": (50, 400),
    "rv_esv_ml": (15, 320),
    "rv_sv_ml": (20, 180),
    "rv_ef_percent": (5, 85),
    "wall_thickness_max_mm": (4, 35),
    "wall_thickness_mean_mm": (3, 25),
    "scar_5sd_percent": (0, 50),
    "scar_fwhm_percent": (0, 50),
}


def public_ranges(names: Sequence[str], study: Study) -> list[tuple[float, float]]:
    """Return (low, high) of each variable: the study's own, else that of `PUBLIC_RANGES`.

    Raises
    ------
    PrivacyError
        If a variable has neither.
    """
    known = {**PUBLIC_RANGES, **study.ranges}
    for name in names:
        if name not in known:
            raise PrivacyError(
                f"'{name}' has no public range, without which its mean cannot be noised; add "
                f"'ranges: {{{name}: [low, high]}}' to the study."
            )
    return [known[name] for name in names]


def usual_ranges(names: Sequence[str], study: Study) -> list[tuple[float, float]]:
    """Return ranges as `public_ranges`, and (-1, 1) of a variable that has none.

    For secure sums, which carry values beyond a range too: it only says where the centre lies and
    what is a large number.
    """
    known = {**PUBLIC_RANGES, **study.ranges}
    return [known.get(name, (-1.0, 1.0)) for name in names]
