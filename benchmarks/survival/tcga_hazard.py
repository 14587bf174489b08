"""Federated LogisticHazard on TCGA-BRCA: a linear network of the table, FedAvg over the regions.

Rounds and weight decay are chosen on the training patients alone: the smallest negative
log-likelihood of regions left out one at a time, with the first seed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tcga_data import Patients, Tcga
from torch import Tensor, nn

from client.training import train
from protocol.arrays import Arrays
from protocol.seeds import generator
from protocol.stats import LifeTable
from protocol.survival_config import Prognosis
from protocol.training_config import LocalTraining
from server.agreement import time_grid
from shared_models.execution import Execution
from shared_models.heads.logistic_hazard import interval_targets, risk_score
from shared_models.networks import build as build_network
from shared_models.objectives import prognosis_objective
from shared_models.weights import from_arrays, to_arrays
from strategies import RunningMean, build

HORIZON_MONTHS = 120.0
INTERVALS = 10
ROUNDS = 20
DECAYS = (0.1, 1.0, 3.0, 10.0)
LEARNING_RATE = 0.01
# A guess of a patient's hazard in a year: the network need not learn that most survive.
FIRST_LOGIT = -3.0
EXECUTION = Execution(threads=1)


def grid(training: Sequence[Patients]) -> np.ndarray:
    """Return the ends of the intervals, as a study agrees them from summed life tables."""
    half_years = tuple(np.arange(0.0, HORIZON_MONTHS + 1, 6.0))
    tables = [
        LifeTable.of(
            p.months, p.event, np.zeros(len(p), int), grid_months=half_years, names=("all",)
        )
        for p in training
    ]
    section = Prognosis(num_intervals=INTERVALS, max_horizon_months=HORIZON_MONTHS)
    return np.array(time_grid(tables, section))


def _network(num_covariates: int) -> nn.Module:
    options = {"num_tabular": num_covariates, "num_intervals": INTERVALS, "hidden": ()}
    start = {"start": (FIRST_LOGIT,) * INTERVALS, "field_dropout": 0.0}
    return build_network("tabular", {**options, **start})


def _records(patients: Patients, cuts: np.ndarray) -> dict[str, Tensor]:
    x = torch.tensor(patients.x, dtype=torch.float32)
    targets = interval_targets(patients.months, patients.event, cuts)
    return {
        "tabular": x,
        "missing": torch.zeros_like(x),
        **{name: torch.from_numpy(values) for name, values in targets.items()},
    }


def fit(training: Sequence[Patients], cuts: np.ndarray, decay: float, seed: int) -> Arrays:
    """Return the weights after the last round."""
    options = LocalTraining(weight_decay=decay, augment=False)
    model = _network(training[0].x.shape[1])
    records = [_records(patients, cuts) for patients in training]
    rule, weights = build("fedavg", {}), to_arrays(model)
    state = rule.init(weights)
    for step in range(ROUNDS):
        mean = RunningMean()
        for place, (patients, own) in enumerate(zip(training, records, strict=True)):
            from_arrays(model, weights)
            rng = generator(seed, "tcga/hazard", round_index=step + 1, site=str(place))
            train(
                model,
                own,
                prognosis_objective,
                options,
                learning_rate=LEARNING_RATE,
                rng=rng,
                execution=EXECUTION,
            )
            mean.add(to_arrays(model), len(patients))
        weights, state = rule.step(weights, mean.take(), state)
    return weights


def outputs(weights: Arrays, patients: Patients) -> Tensor:
    """Return the logits of the hazards, (N, K)."""
    model = _network(patients.x.shape[1]).eval()
    from_arrays(model, weights)
    x = torch.tensor(patients.x, dtype=torch.float32)
    with torch.no_grad():
        return model(None, None, x, torch.zeros_like(x))


def choose(training: Sequence[Patients], cuts: np.ndarray, seed: int) -> float:
    """Return the weight decay with the smallest loss on regions left out."""
    losses = []
    for decay in DECAYS:
        total = 0.0
        for left_out, patients in enumerate(training):
            others = [part for region, part in enumerate(training) if region != left_out]
            model = _network(patients.x.shape[1]).eval()
            from_arrays(model, fit(others, cuts, decay, seed))
            with torch.no_grad():
                total += float(prognosis_objective(model, _records(patients, cuts)).sum())
        losses.append(total)
    print("LogisticHazard, loss a patient on regions left out, by weight decay:", end=" ")
    number = sum(len(patients) for patients in training)
    print(", ".join(f"{d:g} {v / number:.4f}" for d, v in zip(DECAYS, losses, strict=True)))
    return DECAYS[int(np.argmin(losses))]


def scores(data: Tcga, seeds: Sequence[int]) -> list[np.ndarray]:
    """Return the test patients' risks, one array a seed."""
    training = [region.followed() for region in data.training]
    cuts = grid(training)
    decay = choose(training, cuts, seeds[0])
    fitted = [fit(training, cuts, decay, seed) for seed in seeds]
    return [risk_score(outputs(weights, data.test)).double().numpy() for weights in fitted]
