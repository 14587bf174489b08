"""A study's results from simulated numbers: every figure goes through the real statistics."""

import numpy as np

from protocol.evaluation import AskedCurve
from protocol.stats import (
    QUANTITIES,
    AgreementSums,
    Calibration,
    Histogram,
    LifeTable,
    Moments,
    OverlapSums,
    PairCounts,
    ScoreTable,
    merge_all,
    monthly_grid,
    risk_group,
)
from protocol.stats.brier import BrierSums
from protocol.stats.calibration_errors import CalibrationErrors
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.censoring import CensoringCurve
from protocol.stats.d_calibration import DCalibration
from protocol.stats.decision_curve import band_table
from protocol.stats.reclassification import move_table
from protocol.stats.timed_pairs import antolini_pairs, auc_pairs, uno_pairs
from server.calibration import Answers, calibration_starts, fit_together
from server.report.examples import Example

HORIZON = 60.0
GRID = monthly_grid(HORIZON)
RATE = 0.011  # events a month at mean risk
HOSPITALS = {
    "north": ("train", "siemens", 220),
    "river": ("train", "philips", 180),
    "hill": ("train", "ge", 150),
    "island": ("train", "canon", 120),
    "harbour": ("external", "ge", 240),
}
UNITS = {"age": "years", "sex": "sex", "qrs": "ms", "nt_probnp": "pg/mL", "lbbb": "0/1"}
REFERENCE = {
    "lv_ef_percent": (45, 14, 0.6, 3.0),
    "lv_edv_ml": (190, 45, 3.0, 7.0),
    "lv_esv_ml": (105, 40, 1.0, 6.0),
    "lv_mass_g": (130, 30, -4.0, 8.0),
    "rv_ef_percent": (52, 9, 1.5, 4.5),
}


def _outcome(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    truth = rng.normal(0, 1.0, n)
    onset = rng.exponential(1 / (RATE * np.exp(truth)))
    end = rng.uniform(12, 96, n)
    return {"eta": truth, "months": np.minimum(onset, end), "event": onset <= end}


def _risk(rng: np.random.Generator, truth: np.ndarray, noise: float) -> np.ndarray:
    score = 0.75 * truth + rng.normal(0, noise, len(truth))
    return 1 - np.exp(-RATE * HORIZON * np.exp(score))


def _segmentation(rng: np.random.Generator, n: int, loss: float) -> dict:
    centre = np.array([[0.945, 0.915], [0.85, 0.87], [0.90, 0.86]]) - loss
    dice = np.clip(centre + rng.normal(0, 0.025, (n, 3, 2)), 0, 1)
    distance = 40 * (1 - dice) + rng.exponential(0.8, (n, 3, 2))
    agreement = {}
    for name, (mean, sd, bias, error) in REFERENCE.items():
        reference = rng.normal(mean, sd, n)
        predicted = reference + bias + rng.normal(0, error * (1 + 8 * loss), n)
        agreement[name] = AgreementSums.of(name, predicted, reference).suppressed(5)
    overlap = OverlapSums.of(dice, 1.6 * distance, 0.4 * distance)
    return {"overlap": overlap.suppressed(5), "agreement": agreement}


def _prognosis(rng: np.random.Generator, patients: dict, risk: np.ndarray, cuts: dict) -> dict:
    months, event = patients["months"], patients["event"]
    groups = risk_group(risk, cuts["risk"])
    names = ("low", "middle", "high")
    table = LifeTable.of(months, event, groups, grid_months=GRID, names=names)
    calibration = Calibration.of(months, event, risk, cuts=cuts["calibration"], grid_months=GRID)
    pairs = PairCounts.of(months, event, risk, tau_months=HORIZON, replicates=200, rng=rng)
    return {
        "pairs": pairs.suppressed(5),
        "life_table": table.suppressed(5, complementary=False),
        "calibration": calibration.suppressed(5, complementary=False),
    }


HORIZONS = (12.0, 24.0, 36.0, 48.0, 60.0)
THRESHOLDS = (0.3, 0.5, 0.7)


def _survival(risk: np.ndarray, months: np.ndarray) -> np.ndarray:
    # One constant hazard a patient, as the example's outcomes are drawn.
    return (1 - risk[:, None]) ** (np.asarray(months) / HORIZON)


def _evaluation(rng: np.random.Generator, cohorts: dict, risks: dict, edges: tuple) -> dict:
    """Return the role's part, and each site's, as the two passes would."""
    tables = {
        name: ScoreTable.of(c["months"], c["event"], risks[name], edges=edges, grid_months=GRID)
        for name, c in cohorts.items()
    }
    censoring = CensoringCurve.from_table(merge_all(list(tables.values())).life_table())

    def ask(asked: list[AskedCurve]) -> Answers:
        steps = [
            [
                CalibrationStep.of(
                    c["months"],
                    c["event"],
                    risks[name],
                    curve=each.curve,
                    horizon_months=HORIZON,
                    censoring=censoring,
                ).to_dict()
                for each in asked
            ]
            for name, c in cohorts.items()
        ]
        return {"train": steps}

    fits = fit_together(ask, calibration_starts(("train",), (HORIZON,), {"60": (-2.0, -0.5, 1.0)}))
    best = fits["train", HORIZON, "spline"].asked
    sites = {}
    for name, cohort in cohorts.items():
        outcome, risk = (cohort["months"], cohort["event"]), risks[name]
        draws = {"replicates": 60, "rng": rng}
        weighted = {"censoring": censoring, **draws}
        end = np.minimum(cohort["months"], HORIZON)
        sites[name] = {
            "score_table": tables[name].suppressed(5),
            "bands": band_table(*outcome, risk, thresholds=THRESHOLDS, grid_months=GRID),
            "moves": move_table(
                *outcome,
                np.clip(risk + rng.normal(0, 0.1, len(risk)), 0, 1),
                risk,
                cuts=(0.4, 0.6),
                grid_months=GRID,
            ),
            "uno": uno_pairs(*outcome, risk, tau_months=HORIZON, **weighted),
            "antolini": antolini_pairs(
                *outcome, _survival(risk, GRID), grid_months=GRID, tau_months=HORIZON, **draws
            ),
            "auc": {"60": auc_pairs(*outcome, risk, horizon_months=HORIZON, **weighted)},
            "brier": BrierSums.of(
                *outcome, _survival(risk, HORIZONS), horizons_months=HORIZONS, **weighted
            ).suppressed(5),
            "d_calibration": DCalibration.of(
                np.diagonal(_survival(risk, end)), cohort["event"] * (end < HORIZON), num_bins=5
            ),
            "calibration_errors": {"60": CalibrationErrors.of(risk, best.curve)},
        }
    role = {
        "horizons_months": (HORIZON,),
        "thresholds": THRESHOLDS,
        "grid_months": GRID,
        "censoring": censoring.survival,
        "calibration": [fit.result.model_dump() for fit in fits.values()],
    }
    return {"sites": sites, "role": role}


def example_results(seed: int = 1) -> dict:
    """Return the results of a made-up study with four training hospitals and an external one."""
    rng = np.random.default_rng(seed)
    cohorts = {name: _outcome(rng, n) for name, (_, _, n) in HOSPITALS.items()}
    arms = {"federated": (0.55, 0.0), "pooled": (0.53, -0.001)}
    for name in ("north", "river"):
        arms[f"local/{name}"] = (1.2, 0.035)
    risks = {
        arm: {name: _risk(rng, p["eta"], noise) for name, p in cohorts.items()}
        for arm, (noise, _) in arms.items()
    }
    scores = [
        Histogram.of(risks["federated"][name])
        for name, (role, _, _) in HOSPITALS.items()
        if role == "train"
    ]
    total = merge_all(scores)
    cuts = {"risk": total.cuts(3), "calibration": total.cuts(5)}
    validated: dict = {arm: {"sites": {}} for arm in arms}
    for arm, (_, loss) in arms.items():
        for name, (role, _, n) in HOSPITALS.items():
            held = slice(None) if role == "external" else slice(0, n // 2)
            cohort = {key: values[held] for key, values in cohorts[name].items()}
            shift = 0.012 if role == "external" else 0.0
            site = _segmentation(rng, len(cohort["months"]), loss + shift)
            site |= _prognosis(rng, cohort, risks[arm][name][held], cuts)
            validated[arm]["sites"][name] = site
    _evaluate(validated["federated"], cohorts, risks["federated"], total)
    return {
        "study": {
            "name": "five-hospitals",
            "seed": seed,
            "code_version": "0.1.0",
            "config_sha256": "5e" * 32,
            "models": {"segment": "a1" * 32, "prognosis": "b2" * 32},
            "simulated": True,
            "min_cell": 5,
            "horizon_months": HORIZON,
        },
        "hospitals": [_hospital(rng, name, cohorts[name]) for name in HOSPITALS],
        "training": {"segment": _training(rng, 20, 1.1), "prognosis": _training(rng, 30, 0.9)},
        "arms": validated,
        "oracle": _oracle(rng, cohorts),
    }


def _evaluate(arm: dict, cohorts: dict, risks: dict, scores: Histogram) -> None:
    rng = np.random.default_rng(7)
    arm["evaluation"] = {}
    for wanted in ("train", "external"):
        held = {
            name: slice(None) if wanted == "external" else slice(0, n // 2)
            for name, (role, _, n) in HOSPITALS.items()
            if role == wanted
        }
        judged = {
            name: {key: values[rows] for key, values in cohorts[name].items()}
            for name, rows in held.items()
        }
        predicted = {name: risks[name][rows] for name, rows in held.items()}
        found = _evaluation(rng, judged, predicted, scores.cuts(40))
        for name, sums in found["sites"].items():
            arm["sites"][name]["evaluation"] = sums
        arm["evaluation"][wanted] = found["role"]


def _hospital(rng: np.random.Generator, name: str, cohort: dict) -> dict:
    role, vendor, n = HOSPITALS[name]
    means = np.array([58, 0.62, 118, 950, 0.2])
    values = means + np.array([12, 0, 22, 420, 0]) * rng.normal(size=(n, 5))
    values[:, 1], values[:, 4] = rng.random(n) < 0.62, rng.random(n) < 0.2
    values[rng.random((n, 5)) < 0.06] = np.nan
    names = tuple(UNITS) if name != "hill" else tuple(UNITS)[:3]
    return {
        "name": name,
        "role": role,
        "patients": n,
        "events": int(cohort["event"].sum()),
        "person_years": float(cohort["months"].sum() / 12),
        "median_followup_months": float(np.median(cohort["months"])),
        "vendors": {vendor: n} if role == "train" else {"ge": 150, "siemens": 90},
        "field_strengths_t": {"1.5": n - 40, "3.0": 40},
        "covariates": Moments.of(names, values[:, : len(names)]).suppressed(5),
        "units": {key: UNITS[key] for key in names},
        "refused": {"no cine short axis": None if name == "north" else 0},
    }


def _training(rng: np.random.Generator, rounds: int, start: float) -> dict:
    curve = 0.2 + start * np.exp(-np.arange(rounds) / (rounds / 5))
    loss: dict = {}
    for name, (role, _, _) in HOSPITALS.items():
        if role == "train":
            level = 1 + 0.1 * rng.normal()
            loss[name] = [float(v) for v in level * curve + 0.015 * rng.normal(size=rounds)]
    loss["hill"][3] = None
    return {"loss": loss}


def _oracle(rng: np.random.Generator, cohorts: dict) -> dict:
    pairs = {}
    for name, cohort in cohorts.items():
        role, _, n = HOSPITALS[name]
        held = slice(None) if role == "external" else slice(0, n // 2)
        months, event, truth = (cohort[key][held] for key in ("months", "event", "eta"))
        pairs[name] = PairCounts.of(
            months, event, truth, tau_months=HORIZON, replicates=200, rng=rng
        )
    return {"pairs": pairs, "closed_form": dict.fromkeys(cohorts, 0.741)}


def example_images() -> list[Example]:
    """Return two ring-shaped phantoms."""
    y, x = np.mgrid[:128, :128]
    pictures = []
    for title, radius in (("harbour, end-diastole, mid level", 22), ("harbour, end-systole", 15)):
        reference = _heart(y, x, radius)
        levels = np.array([0.15, 0.85, 0.3, 0.8])
        noise = np.random.default_rng(radius).normal(0, 0.05, reference.shape)
        predicted = _heart(y + 1, x, radius - 1)
        pictures.append(Example(title, levels[reference] + noise, predicted, reference, 1.5))
    return pictures


def _heart(y: np.ndarray, x: np.ndarray, radius: int) -> np.ndarray:
    distance = np.hypot(y - 64, x - 68)
    labels = np.zeros(y.shape, dtype=np.int64)
    labels[np.hypot((y - 64) / 1.3, x - 44) < radius] = 3
    labels[distance < radius + 9] = 2
    labels[distance < radius] = 1
    return labels


assert set(REFERENCE) <= set(QUANTITIES)
