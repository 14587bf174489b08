"""FLamby's gradient strategies on TCGA-BRCA, with our aggregation rules and our Cox loss.

The setting is FLamby's: a linear Cox model of the raw covariates (age in years among zeros and
ones), the partial likelihood of batches of 8 divided by the batch, five rounds of 100 steps of
plain SGD at every region, regions weighted by their patients, the initial weights of the same
seeds. The rates are those in the published result files; the published rounds follow from
FLamby's ``(866 // 6 // 8) * 30 // 100``. The order of the batches is drawn by us. Cyclic weight
transfer asks one region a round, five of the six, in the order that FLamby draws from the same
seeds; pooled and local training are 30 epochs of Adam.

It is a biased loss (a patient is compared with seven others), kept here only to stand beside the
published figures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tcga_batches import Batches
from tcga_data import REGIONS, Patients, Tcga
from torch import nn

from protocol.arrays import Arrays
from protocol.control import control_change, moved, no_control
from protocol.seeds import generator
from server.turns import whose_turn
from strategies import RunningMean, build
from strategies.scaffold import as_state, control_of

BATCH, STEPS, ROUNDS, EPOCHS = 8, 100, 5, 30
ADAPTIVE = {"beta_1": 0.9, "beta_2": 0.999, "tau": 1e-8, "initial_v": 0.0}
CENTRAL_RATE = 0.1
Order = Callable[[int, int], int]
# A published seed, which gives the first weights, and one of the orders of batches drawn for it.
Draw = tuple[int, int]


@dataclass(frozen=True)
class Setting:
    """An aggregation rule, whom it asks, and the regions' rate."""

    strategy: str
    learning_rate: float
    options: Mapping[str, float] = field(default_factory=dict)
    proximal_mu: float = 0.0
    in_turn: bool = False


SETTINGS = {
    "FedAvg": Setting("fedavg", 0.1),
    "FedProx": Setting("fedprox", 0.1, proximal_mu=0.1),
    "Scaffold": Setting("scaffold", 0.01, {"learning_rate": 1.0}),
    "Cyclic": Setting("fedavg", 0.01, in_turn=True),
    "FedAdam": Setting("fedadam", 0.01, {**ADAPTIVE, "learning_rate": 0.1}),
    "FedYogi": Setting("fedyogi", 0.01, {**ADAPTIVE, "learning_rate": 0.1}),
    "FedAdagrad": Setting("fedadagrad", 0.01, {**ADAPTIVE, "learning_rate": 1.0}),
}


def initial(num_covariates: int, seed: int) -> np.ndarray:
    """Return the first weights of FLamby's run with this seed, (P,)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(num_covariates, 1).weight[0].detach().double().numpy()


def published_turn(seed: int, number: int) -> int:
    """Return the region of a round of the first cycle, as FLamby draws it."""
    return int(np.random.default_rng(seed).permutation(REGIONS)[number - 1])


def our_turn(seed: int, number: int) -> int:
    """Return the region of a round as a study with ``ask: in turn`` does."""
    return int(whose_turn(map(str, range(REGIONS)), seed, "tcga", number))


class Run:
    """One strategy under one seed: the model, the rule's state and the regions' variates."""

    def __init__(self, data: Tcga, setting: Setting, seed: int) -> None:
        self.setting, self.seed = setting, seed
        self.rule = build(setting.strategy, setting.options)
        self.weights: Arrays = {"w": initial(len(data.names), seed)}
        self.state = self.rule.init(self.weights)
        self.own = [no_control(self.weights) for _ in data.training]
        self.sizes = [len(part) for part in data.training]

    def asked(self, number: int, turn: Order) -> list[int]:
        """Return the regions of a round."""
        return [turn(self.seed, number)] if self.setting.in_turn else list(range(REGIONS))

    def correction(self, region: int) -> np.ndarray:
        """Return ``c - c_i``, 0 unless the strategy is SCAFFOLD."""
        return control_of(self.state).get("w", 0.0) - self.own[region]["w"]

    def step(self, trained: Mapping[int, np.ndarray]) -> None:
        """Aggregate the regions' weights, by region."""
        mean, control = RunningMean(), control_of(self.state)
        for region, weights in trained.items():
            found = {"w": weights}
            if control:
                rate_sum = STEPS * self.setting.learning_rate
                change = control_change(self.weights, found, control, rate_sum, "A region")
                self.own[region] = moved(self.own[region], change)
                found |= as_state(change)
            mean.add(found, self.sizes[region])
        self.weights, self.state = self.rule.step(self.weights, mean.take(), self.state)


def train(
    data: Tcga, setting: Setting, draws: Sequence[Draw], turn: Order = published_turn
) -> list[np.ndarray]:
    """Return the test patients' scores after the last round, (N,) for each draw."""
    runs = [Run(data, setting, seed) for seed, _ in draws]
    rngs = [
        generator(seed, "tcga/batches", round_index=draw, site=str(region))
        for seed, draw in draws
        for region in range(REGIONS)
    ]
    batches = Batches.of(data.training * len(draws), rngs, BATCH, ROUNDS * STEPS)
    taken = np.zeros(len(rngs), int)
    for number in range(1, ROUNDS + 1):
        asked = [(place, k) for place, run in enumerate(runs) for k in run.asked(number, turn)]
        models = np.array([place * REGIONS + region for place, region in asked])
        start = np.stack([runs[place].weights["w"] for place, _ in asked])
        shift = np.stack([runs[place].correction(region) for place, region in asked])
        weights = start.copy()
        for _ in range(STEPS):
            gradient = batches.gradient(models, weights, taken[models])
            gradient += shift + setting.proximal_mu * (weights - start)
            weights -= setting.learning_rate * gradient
            taken[models] += 1
        for place, run in enumerate(runs):
            parts = zip(asked, weights, strict=True)
            run.step({region: found for (owner, region), found in parts if owner == place})
    return [data.test.x @ run.weights["w"] for run in runs]


def central(data: Tcga, patients: Patients, draws: Sequence[Draw]) -> list[np.ndarray]:
    """Return the test patients' scores after 30 epochs of Adam on some patients, (N,) a draw."""
    num_steps = EPOCHS * -(-len(patients) // BATCH)
    rngs = [generator(seed, "tcga/central", round_index=draw) for seed, draw in draws]
    batches = Batches.of([patients] * len(draws), rngs, BATCH, num_steps)
    weights = torch.from_numpy(np.stack([initial(len(data.names), seed) for seed, _ in draws]))
    optimiser = torch.optim.Adam([weights], lr=CENTRAL_RATE)
    models = np.arange(len(draws))
    for step in range(num_steps):
        weights.grad = torch.from_numpy(batches.gradient(models, weights.numpy(), step))
        optimiser.step()
    return [data.test.x @ found for found in weights.numpy()]


def baselines(data: Tcga) -> dict[str, Patients]:
    """Return whose patients FLamby trains on without federation, by the published names."""
    parts = data.training
    pooled = Patients(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.months for part in parts]),
        np.concatenate([part.event for part in parts]),
    )
    return {"Pooled Training": pooled} | {f"Local {k}": part for k, part in enumerate(parts)}
