"""FLamby's gradient strategies on TCGA-BRCA, with our aggregation rules and our Cox loss.

The setting is FLamby's: a linear Cox model of the raw covariates (age in years among zeros and
ones), the partial likelihood of batches of 8 divided by the batch, five rounds of 100 steps of
plain SGD at every region, regions weighted by their patients, the initial weights of the same
seeds. The rates are those in the published result files; the published rounds follow from
FLamby's ``(866 // 6 // 8) * 30 // 100``. The order of the batches is drawn by us.

It is a biased loss (a patient is compared with seven others), kept here only to stand beside the
published figures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from tcga_data import Patients, Tcga
from torch import nn

from protocol.seeds import generator
from shared_models.heads.cox import partial_nll
from shared_models.losses.proximal import proximal_term
from shared_models.weights import from_arrays, to_arrays
from strategies import RunningMean, build

BATCH, STEPS, ROUNDS = 8, 100, 5
ADAPTIVE = {"beta_1": 0.9, "beta_2": 0.999, "tau": 1e-8, "initial_v": 0.0}


@dataclass(frozen=True)
class Setting:
    """An aggregation rule and the regions' rate."""

    strategy: str
    learning_rate: float
    options: Mapping[str, float] = field(default_factory=dict)
    proximal_mu: float = 0.0


SETTINGS = {
    "FedAvg": Setting("fedavg", 0.1),
    "FedProx": Setting("fedprox", 0.1, proximal_mu=0.1),
    "FedAdam": Setting("fedadam", 0.01, {**ADAPTIVE, "learning_rate": 0.1}),
    "FedYogi": Setting("fedyogi", 0.01, {**ADAPTIVE, "learning_rate": 0.1}),
    "FedAdagrad": Setting("fedadagrad", 0.01, {**ADAPTIVE, "learning_rate": 1.0}),
}


class Region:
    """One region's patients as an endless stream of batches, shuffled in every pass."""

    def __init__(self, patients: Patients, rng: np.random.Generator) -> None:
        self.size = len(patients)
        self.x = torch.tensor(patients.x, dtype=torch.float32)
        # A day more for everyone keeps the order and makes the time of those not seen again valid.
        self.months = torch.tensor(patients.months + 1 / 30, dtype=torch.float32)
        self.event = torch.tensor(patients.event, dtype=torch.float32)
        self._batches = self._stream(rng)

    def _stream(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        while True:
            yield from torch.split(torch.from_numpy(rng.permutation(self.size)), BATCH)

    def train(self, model: nn.Linear, setting: Setting) -> None:
        """Take the steps of one round, in place."""
        anchor = {name: value.detach().clone() for name, value in model.named_parameters()}
        parameters = list(model.parameters())
        for _ in range(STEPS):
            rows = next(self._batches)
            loss = partial_nll(
                model(self.x[rows]).squeeze(1),
                self.months[rows],
                self.event[rows],
                ties="breslow",
                normaliser=len(rows),
            )
            if setting.proximal_mu:
                loss = loss + proximal_term(model, anchor, setting.proximal_mu)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= setting.learning_rate * gradient


def initial(num_covariates: int, seed: int) -> nn.Linear:
    """Return the first weights of FLamby's run with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(num_covariates, 1)


def train(data: Tcga, setting: Setting, seed: int) -> np.ndarray:
    """Return the test patients' scores after the last round, (N,)."""
    regions = [
        Region(patients, generator(seed, "tcga/batches", site=str(place)))
        for place, patients in enumerate(data.training)
    ]
    model = initial(len(data.names), seed)
    rule = build(setting.strategy, setting.options)
    weights = to_arrays(model)
    state = rule.init(weights)
    for _ in range(ROUNDS):
        mean = RunningMean()
        for region in regions:
            from_arrays(model, weights)
            region.train(model, setting)
            mean.add(to_arrays(model), region.size)
        weights, state = rule.step(weights, mean.take(), state)
    return data.test.x @ weights["weight"][0].astype(np.float64)
