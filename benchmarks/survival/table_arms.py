"""Networks that the product trained on a table, and a Cox regression beside them, as curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve_scores import Curves
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from protocol.config import Study
from server.agreement import merge_moments, scales
from server.results import Results, load_results
from shared_models.heads.logistic_hazard import survival_at
from shared_models.networks import build
from shared_models.weights import from_arrays, load
from sim.arms import make_arms
from sim.config import SurvivalConfig
from sim.engines.local import run_local
from sim.simulation import load_simulation, real_data
from sim.survival_data import Row, make_survival_hospitals

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "metabric.yaml"


def study_of(data: str, rows: Sequence[Row], changes: Mapping[str, Any]) -> Study:
    """Return the configured study, for other data with their hospitals and covariates.

    ``changes`` may name options of the network, of the training, of the strategy (``momentum``)
    and of the section itself.
    """
    study = load_simulation(CONFIG)[0].model_dump(by_alias=True)
    study["name"] = data
    for role, names in study["hospitals"].items():
        study["hospitals"][role] = [name.replace("metabric", data) for name in names]
    prognosis = study["prognosis"]
    prognosis["covariates"] = list(rows[0].covariates)
    parts = (
        prognosis["network"]["options"],
        prognosis["training"],
        prognosis,
        prognosis["strategy"]["options"],
    )
    for option, value in changes.items():
        next(part for part in parts if option in part)[option] = value
    # Judged here, on the rows themselves.
    study["stages"] = ["survey", "prognosis"]
    return Study.model_validate(study)


def without(study: Study, hospitals: Sequence[str]) -> Study:
    """Return the study without these training hospitals, and without a test set."""
    kept = [name for name in study.hospitals.train if name not in hospitals]
    roles = {"hospitals": {"train": kept, "external": list(hospitals)}}
    return Study.model_validate(study.model_dump(by_alias=True) | roles)


class Trained:
    """The network of a finished run, applied to rows that the run may never have seen."""

    def __init__(self, study: Study, run: Path) -> None:
        results: Results = load_results(run / "results.json")
        section = study.prognosis
        moments = [h.covariates for h in results.hospitals if h.name in study.hospitals.train]
        agreed = scales(merge_moments([each for each in moments if each is not None]))
        self.names = section.covariates
        self.mean, self.sd = np.array([agreed[name] for name in self.names]).T
        self.cuts = torch.tensor(results.study.cuts_months, dtype=torch.float64)
        self.model = build(section.network.name, section.network_options()).eval()
        from_arrays(self.model, load(run / "prognosis" / "final.safetensors")[0])

    def curves(self, rows: Sequence[Row]) -> Curves:
        """Return S of these patients as a function of months."""
        table = torch.tensor((values(rows, self.names) - self.mean) / self.sd, dtype=torch.float32)
        with torch.no_grad():
            logits = self.model(None, None, table, torch.zeros_like(table)).double()
        return lambda months: survival_at(logits, self.cuts, torch.tensor(months)).numpy()


def values(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Return covariates, (N, P)."""
    return np.array([[row.covariates[name] for name in names] for row in rows])


def outcomes(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return months and events."""
    return np.array([row.months for row in rows]), np.array([row.event for row in rows])


def train(study: Study, data: str, seed: int, folder: Path, *, pooled: bool) -> list[Trained]:
    """Run the federated arm of one seed, and the pooled one if asked; return their networks."""
    study = study.model_copy(update={"seed": seed})
    made = make_survival_hospitals(
        real_data() / "survival", folder / "hospitals", SurvivalConfig(data=data), seed
    )
    sites = {name: made[name] for name in study.hospitals.all}
    trained = []
    for arm in make_arms(study, sites, folder, ("pooled",) if pooled else ()):
        run_local(arm.study_file, arm.run_dir, arm.sites)
        trained.append(Trained(arm.study, arm.run_dir))
    return trained


def cox_curves(training: Sequence[Row], judged: Sequence[Row]) -> Curves:
    """Return S by scikit-survival's Cox regression (Efron) on all training patients together."""
    names = list(training[0].covariates)
    x = values(training, names)
    mean, sd = x.mean(axis=0), x.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    months, event = outcomes(training)
    fitted = CoxPHSurvivalAnalysis(ties="efron")
    fitted.fit((x - mean) / sd, Surv.from_arrays(event == 1, months))
    functions = fitted.predict_survival_function((values(judged, names) - mean) / sd)
    ends = functions[0].x[[0, -1]]

    def survival(at: np.ndarray) -> np.ndarray:
        # scikit-survival refuses times outside the training patients' own.
        known = np.stack([function(np.clip(at, *ends)) for function in functions])
        return np.where(at < ends[0], 1.0, known)

    return survival
