"""Steady-state signal of the two sequences, and the relaxation times of the tissues.

``bssfp_signal`` is always positive; ``inversion_recovery_signal`` keeps its sign, so that tissues
mix in a voxel before the magnitude is taken, as they do in the scanner.
"""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "LGE_REPETITION_MS",
    "TISSUES",
    "Tissue",
    "bssfp_signal",
    "cine_signals",
    "inversion_recovery_signal",
    "lge_signals",
    "null_time_ms",
]

#: Two heart beats: with it the myocardium of the published post-contrast T1 is nulled at 402 ms.
LGE_REPETITION_MS = 1700.0


@dataclass(frozen=True)
class Tissue:
    """Proton density (a.u.) and relaxation times, ms, by field strength, T.

    Attributes
    ----------
    native : dict
        (T1, T2) without contrast agent.
    enhanced_t1 : dict
        T1 some ten minutes after gadolinium.
    """

    density: float
    native: dict[float, tuple[float, float]]
    enhanced_t1: dict[float, float]


TISSUES: dict[str, Tissue] = {
    "myocardium": Tissue(80.0, {1.5: (1030, 50), 3.0: (1170, 46)}, {1.5: 480, 3.0: 645}),
    "blood": Tissue(95.0, {1.5: (1550, 200), 3.0: (1820, 152)}, {1.5: 330, 3.0: 508}),
    "scar": Tissue(80.0, {1.5: (1080, 52), 3.0: (1230, 48)}, {1.5: 270, 3.0: 330}),
    "fat": Tissue(70.0, {1.5: (300, 60), 3.0: (350, 55)}, {1.5: 280, 3.0: 330}),
    "muscle": Tissue(75.0, {1.5: (950, 38), 3.0: (1100, 32)}, {1.5: 700, 3.0: 860}),
    "liver": Tissue(78.0, {1.5: (600, 48), 3.0: (780, 36)}, {1.5: 330, 3.0: 430}),
    "lung": Tissue(9.0, {1.5: (1100, 40), 3.0: (1300, 35)}, {1.5: 600, 3.0: 700}),
    "bone": Tissue(35.0, {1.5: (500, 45), 3.0: (550, 40)}, {1.5: 400, 3.0: 450}),
}


def bssfp_signal(
    density: float, t1_ms: float, t2_ms: float, te_ms: float, flip_deg: float
) -> float:
    """Return the balanced steady-state signal on resonance, TR << T2.

    ``rho sin a exp(-TE/T2) / ((T1/T2 + 1) - cos a (T1/T2 - 1))``.
    """
    flip = np.deg2rad(flip_deg)
    ratio = t1_ms / t2_ms
    steady = np.sin(flip) / ((ratio + 1) - np.cos(flip) * (ratio - 1))
    return float(density * steady * np.exp(-te_ms / t2_ms))


def inversion_recovery_signal(t1_ms: float, ti_ms: float, tr_ms: float) -> float:
    """Return longitudinal magnetisation, in [-1, 1]: ``1 - 2 exp(-TI/T1) + exp(-TR/T1)``."""
    return float(1 - 2 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms))


def null_time_ms(t1_ms: float, tr_ms: float = LGE_REPETITION_MS) -> float:
    """Return the inversion time that nulls a tissue: ``T1 (ln 2 - ln(1 + exp(-TR/T1)))``, ms."""
    return float(t1_ms * (np.log(2) - np.log1p(np.exp(-tr_ms / t1_ms))))


def cine_signals(field_t: float, te_ms: float, flip_deg: float) -> dict[str, float]:
    """Return the bSSFP signal of every tissue relative to blood."""
    signals = {
        name: bssfp_signal(tissue.density, *tissue.native[field_t], te_ms, flip_deg)
        for name, tissue in TISSUES.items()
    }
    return {name: value / signals["blood"] for name, value in signals.items()}


def lge_signals(field_t: float, ti_error_ms: float) -> tuple[dict[str, float], float]:
    """Return the signed IR signal of every tissue relative to scar, and the inversion time, ms.

    ``ti_error_ms`` is how far the operator missed the null of healthy myocardium.
    """
    ti_ms = null_time_ms(TISSUES["myocardium"].enhanced_t1[field_t]) + ti_error_ms
    signals = {
        name: tissue.density
        * inversion_recovery_signal(tissue.enhanced_t1[field_t], ti_ms, LGE_REPETITION_MS)
        for name, tissue in TISSUES.items()
    }
    return {name: value / signals["scar"] for name, value in signals.items()}, ti_ms
