"""Draw a patient: disease, heart, scar, record, and the two parts of the log risk.

Distributions after the published cohorts listed with each table; where they give a mean and an sd,
values are drawn Gaussian and clipped to what a body can have.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.phantom.geometry import Anatomy, Heart, build_heart
from sim.phantom.motion import Function
from sim.phantom.scar import Patch, Scar, ScarBurden, measure_scar, mobility

__all__ = [
    "IMAGE_SCORE",
    "RECORD_SCORE",
    "Patient",
    "draw_patient",
    "image_score",
    "record_score",
]

#: Mean and sd of the raw scores below over 4,000 patients of the default class mix; a test
#: recomputes them. Constants, so that a patient's risk does not depend on who else was drawn.
IMAGE_SCORE = (2.00, 1.21)
RECORD_SCORE = (0.245, 1.00)


@dataclass(frozen=True)
class DiseaseProfile:
    """Mean and sd of what a disease does to the heart; volumes are men's, women have 0.84 of it.

    Attributes
    ----------
    edv_ml, ejection, wall_mm, length_mm, descent_mm : tuple of float
        Mean and sd.
    hypertrophy : tuple of float
        Range of the septum's extra thickness, share of the wall.
    """

    edv_ml: tuple[float, float]
    ejection: tuple[float, float]
    wall_mm: tuple[float, float]
    length_mm: tuple[float, float]
    descent_mm: tuple[float, float]
    hypertrophy: tuple[float, float]
    age_years: tuple[float, float]
    male: float
    qrs_ms: tuple[float, float]
    nsvt: float
    lbbb: float
    family_scd: float


# Normal hearts: Kawel-Boehm et al. 2015; the diseases after published registries, rounded.
DISEASES: Mapping[str, DiseaseProfile] = {
    "normal": DiseaseProfile(
        (160, 22), (0.65, 0.045), (7.6, 0.7), (92, 4), (14, 1.5), (0, 0.15),
        (54, 13), 0.55, (94, 9), 0.03, 0.01, 0.03,
    ),
    "dcm": DiseaseProfile(
        (250, 42), (0.31, 0.085), (8.0, 0.9), (103, 5), (7.5, 1.5), (0, 0.15),
        (55, 13), 0.64, (118, 22), 0.25, 0.25, 0.08,
    ),
    "hcm": DiseaseProfile(
        (142, 20), (0.68, 0.06), (10.0, 1.2), (89, 4), (12, 1.5), (0.5, 1.1),
        (55, 14), 0.72, (100, 13), 0.19, 0.03, 0.12,
    ),
    "ischaemic": DiseaseProfile(
        (205, 38), (0.50, 0.05), (7.8, 0.8), (97, 5), (9, 1.8), (0, 0.1),
        (64, 10), 0.78, (110, 19), 0.20, 0.10, 0.04,
    ),
}  # fmt: skip

# Territory: centre and half-width of the angle (AHA sense), centre of the level.
TERRITORIES = {"lad": (0.55, 0.85, 0.62), "rca": (3.05, 0.62, 0.42), "lcx": (4.40, 0.62, 0.45)}


@dataclass(frozen=True)
class Patient:
    """A phantom patient.

    Attributes
    ----------
    record : dict
        Covariates by canonical name, in canonical units.
    eta_image, eta_record : float
        The two parts of the log risk.
    """

    disease: str
    anatomy: Anatomy
    heart: Heart
    function: Function
    scar: Scar
    burden: ScarBurden
    akinesia: float
    record: dict[str, float]
    eta_image: float
    eta_record: float

    @property
    def eta(self) -> float:
        """Log risk."""
        return self.eta_image + self.eta_record

    @property
    def mobility(self) -> np.ndarray:
        """Freedom of the wall to move, (S, A)."""
        return mobility(self.burden.transmurality, self.akinesia)


def _gauss(
    rng: np.random.Generator, mean_sd: tuple[float, float], low: float, high: float
) -> float:
    return float(np.clip(rng.normal(*mean_sd), low, high))


def _ischaemic_scar(rng: np.random.Generator) -> Scar:
    names = rng.permutation(sorted(TERRITORIES))[: 1 + int(rng.random() < 0.25)]
    patches = []
    for name in names:
        centre, half, sigma = TERRITORIES[str(name)]
        size = rng.uniform(0.6, 1.3)
        # The depth starts below 0, so that the soft edge does not spare the endocardium.
        depth = rng.uniform(0.25, 1.15)
        patches.append(
            Patch(
                float(centre + rng.normal(0, 0.15)), float(half * size),
                float(sigma + rng.normal(0, 0.05)), float(0.36 * size),
                -0.3, float(depth), float(rng.uniform(0.12, 0.7)), float(rng.uniform(0, 6.28)),
            )
        )  # fmt: skip
    return tuple(patches)


def _midwall_scar(rng: np.random.Generator) -> Scar:
    if rng.random() > 0.47:
        return ()
    return (
        Patch(
            float(np.pi / 2 + rng.normal(0, 0.25)), float(rng.uniform(0.4, 1.0)),
            float(rng.uniform(0.25, 0.45)), float(rng.uniform(0.15, 0.35)),
            0.30, float(rng.uniform(0.60, 0.75)),
            float(rng.uniform(0.2, 0.7)), float(rng.uniform(0, 6.28)),
        ),
    )  # fmt: skip


def _insertion_scar(rng: np.random.Generator, half_angle: float) -> Scar:
    patches = []
    for side in (-1, 1):
        if rng.random() < 0.62:
            size = rng.uniform(0.3, 1.0)
            patches.append(
                Patch(
                    float(np.pi / 2 + side * 0.85 * half_angle), float(0.18 + 0.35 * size),
                    float(rng.uniform(0.25, 0.5)), float(0.12 + 0.25 * size),
                    float(rng.uniform(0.0, 0.25)), float(rng.uniform(0.7, 1.0)),
                    float(rng.uniform(0.3, 0.8)), float(rng.uniform(0, 6.28)),
                )
            )  # fmt: skip
    return tuple(patches)


def image_score(ejection_fraction: float, burden: ScarBurden) -> float:
    """Return the pixel-visible risk before standardisation: scar, grey zone, pump failure.

    ``ejection_fraction`` in (0, 1); the LVEF term is bent, because risk rises little above 50 %.
    """
    failure = np.log1p(np.exp((0.45 - ejection_fraction) / 0.08))
    return float(
        0.80 * np.sqrt(burden.core_percent) / 2.0
        + 0.55 * np.sqrt(burden.grey_percent) / 1.2
        + 0.60 * failure
    )


def record_score(record: Mapping[str, float]) -> float:
    """Return the covariates' risk before standardisation."""
    return float(
        0.55 * (record["age"] - 58) / 12
        + 0.45 * (record["qrs"] - 108) / 22
        + 0.25 * (record["qrs"] > 150)
        + 0.60 * (record["nyha"] - 2)
        + 0.90 * record["nsvt"]
    )


def _draw_record(
    profile: DiseaseProfile, male: bool, esv_ml: float, rng: np.random.Generator
) -> dict[str, float]:
    age = _gauss(rng, profile.age_years, 18, 90)
    lbbb = float(rng.random() < profile.lbbb)
    height = _gauss(rng, (176, 7) if male else (163, 6.5), 145, 205)
    bmi = _gauss(rng, (27, 4), 17, 45)
    nyha = int(np.clip(np.round(rng.normal(1.9, 0.75)), 1, 4))
    creatinine = float(np.exp(rng.normal(np.log(88 if male else 72), 0.25) + 0.005 * (age - 58)))
    probnp = float(np.exp(rng.normal(np.log(120), 0.8) + esv_ml / 85 + 0.02 * (age - 58)))
    return {
        "age": round(age),
        "sex": float(male),
        "height": round(height),
        "weight": round(bmi * (height / 100) ** 2),
        "bmi": round(bmi, 1),
        "heart_rate": round(_gauss(rng, (70, 10), 45, 115)),
        "sbp": round(_gauss(rng, (126, 16), 85, 200)),
        "qrs": round(_gauss(rng, profile.qrs_ms, 70, 190) + 34 * lbbb),
        "nyha": float(nyha),
        "creatinine": round(min(creatinine, 400.0)),
        "nt_probnp": round(min(probnp, 30_000.0)),
        "diabetes": float(rng.random() < 0.22),
        "af": float(rng.random() < 0.08 + 0.004 * max(age - 50, 0)),
        "nsvt": float(rng.random() < profile.nsvt),
        "lbbb": lbbb,
        "family_scd": float(rng.random() < profile.family_scd),
    }


def draw_patient(
    disease: str, rng: np.random.Generator, *, image_sd: float, record_sd: float
) -> Patient:
    """Draw one patient of a disease.

    Parameters
    ----------
    image_sd, record_sd : float
        Standard deviations of the two parts of eta in the default class mix.
    """
    profile = DISEASES[disease]
    male = bool(rng.random() < profile.male)
    size = 1.0 if male else 0.84
    edv = _gauss(rng, profile.edv_ml, 90, 420) * size
    half_angle = float(rng.uniform(1.10, 1.30))
    rough = (
        rng.uniform(0, 0.04),
        rng.uniform(0, 6.28),
        rng.uniform(0, 0.015),
        rng.uniform(0, 6.28),
    )
    anatomy = Anatomy(
        edv_ml=edv,
        rv_edv_ml=float(np.clip(rng.normal(165, 20) * size, 100, 260)),
        length_mm=_gauss(rng, profile.length_mm, 74, 120) * (1.0 if male else 0.94),
        wall_mm=_gauss(rng, profile.wall_mm, 5.5, 14) * (1.0 if male else 0.88),
        septal_hypertrophy=float(rng.uniform(*profile.hypertrophy)),
        roughness=rough,
        rv_half_angle=half_angle,
    )
    heart = build_heart(anatomy)
    scar: Scar = ()
    if disease == "ischaemic":
        scar = _ischaemic_scar(rng)
    elif disease == "dcm":
        scar = _midwall_scar(rng)
    elif disease == "hcm":
        scar = _insertion_scar(rng, half_angle)
    burden = measure_scar(heart, scar)
    ejection = _gauss(rng, profile.ejection, 0.16, 0.80)
    if disease == "ischaemic":
        ejection = float(np.clip(ejection - 0.009 * burden.core_percent, 0.16, 0.60))
    function = Function(
        ejection_fraction=ejection,
        rv_ejection_fraction=float(np.clip(0.30 + 0.4 * ejection + rng.normal(0, 0.04), 0.2, 0.75)),
        descent_mm=_gauss(rng, profile.descent_mm, 4, 18),
        twist_rad=float(np.deg2rad(16 * min(ejection / 0.6, 1))),
    )
    record = _draw_record(profile, male, edv * (1 - ejection), rng)
    mean, sd = IMAGE_SCORE
    eta_image = image_sd * (image_score(ejection, burden) - mean) / sd
    mean, sd = RECORD_SCORE
    eta_record = record_sd * (record_score(record) - mean) / sd
    return Patient(
        disease, anatomy, heart, function, scar, burden,
        0.9 if disease == "ischaemic" else 0.4, record, eta_image, eta_record,
    )  # fmt: skip
