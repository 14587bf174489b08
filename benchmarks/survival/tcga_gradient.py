"""FLamby's gradient strategies on TCGA-BRCA, with our aggregation rules and our Cox loss.

The setting is FLamby's: a linear Cox model of the raw covariates (age in years among zeros and
ones), the partial likelihood of batches of 8 divided by the batch, five rounds of 100 steps of
plain SGD at every region, regions weighted by their patients, the initial weights of the same
seeds. The rates are those in the published result files; the published rounds follow from
FLamby's ``(866 // 6 // 8) * 30 // 100``. The order of the batches is drawn by us. Cyclic weight
transfer asks one region a round, so that five of the six are asked; pooled and local training are
30 epochs of Adam.

It is a biased loss (a patient is compared with seven others), kept here only to stand beside the
published figures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tcga_data import Patients, Tcga
from torch import Tensor, nn

from protocol.arrays import Arrays
from protocol.control import control_change, moved, no_control
from protocol.seeds import generator
from server.turns import whose_turn
from shared_models.heads.cox import partial_nll
from shared_models.losses.proximal import proximal_term
from shared_models.weights import from_arrays, to_arrays
from strategies import RunningMean, build
from strategies.scaffold import as_state, control_of

BATCH, STEPS, ROUNDS, EPOCHS = 8, 100, 5, 30
ADAPTIVE = {"beta_1": 0.9, "beta_2": 0.999, "tau": 1e-8, "initial_v": 0.0}


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
CENTRAL_RATE = 0.1


class Region:
    """One region's patients as an endless stream of batches, shuffled in every pass."""

    def __init__(self, patients: Patients, rng: np.random.Generator) -> None:
        self.size = len(patients)
        self.x = torch.tensor(patients.x, dtype=torch.float32)
        # A day more for everyone keeps the order and makes the time of those not seen again valid.
        self.months = torch.tensor(patients.months + 1 / 30, dtype=torch.float32)
        self.event = torch.tensor(patients.event, dtype=torch.float32)
        self._batches = self._stream(rng)

    def _stream(self, rng: np.random.Generator) -> Iterator[Tensor]:
        while True:
            yield from torch.split(torch.from_numpy(rng.permutation(self.size)), BATCH)

    def loss(self, model: nn.Linear) -> Tensor:
        """Return the loss of the next batch."""
        rows = next(self._batches)
        return partial_nll(
            model(self.x[rows]).squeeze(1),
            self.months[rows],
            self.event[rows],
            ties="breslow",
            normaliser=len(rows),
        )

    def train(self, model: nn.Linear, setting: Setting, correction: Sequence[Tensor]) -> None:
        """Take the steps of one round, in place; the correction is added to the gradients."""
        anchor = {name: value.detach().clone() for name, value in model.named_parameters()}
        parameters = list(model.parameters())
        for _ in range(STEPS):
            loss = self.loss(model)
            if setting.proximal_mu:
                loss = loss + proximal_term(model, anchor, setting.proximal_mu)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for parameter, gradient, shift in zip(
                    parameters, gradients, correction, strict=True
                ):
                    parameter -= setting.learning_rate * (gradient + shift)


def initial(num_covariates: int, seed: int) -> nn.Linear:
    """Return the first weights of FLamby's run with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(num_covariates, 1)


def _scores(data: Tcga, weights: Arrays) -> np.ndarray:
    return data.test.x @ weights["weight"][0].astype(np.float64)


def train(data: Tcga, setting: Setting, seed: int) -> np.ndarray:
    """Return the test patients' scores after the last round, (N,)."""
    regions = {
        str(place): Region(patients, generator(seed, "tcga/batches", site=str(place)))
        for place, patients in enumerate(data.training)
    }
    model = initial(len(data.names), seed)
    rule = build(setting.strategy, setting.options)
    weights = to_arrays(model)
    state = rule.init(weights)
    own = dict.fromkeys(regions, no_control(weights))
    for number in range(1, ROUNDS + 1):
        turn = whose_turn(regions, seed, "tcga", number)
        control, mean = control_of(state) or no_control(weights), RunningMean()
        for name in [turn] if setting.in_turn else regions:
            from_arrays(model, weights)
            correction = [torch.from_numpy(c - own[name][key]) for key, c in control.items()]
            regions[name].train(model, setting, correction)
            found = to_arrays(model)
            if control_of(state):
                rate_sum = STEPS * setting.learning_rate
                change = control_change(weights, found, control, rate_sum, f"Region {name}")
                own[name] = moved(own[name], change)
                found |= as_state(change)
            mean.add(found, regions[name].size)
        weights, state = rule.step(weights, mean.take(), state)
    return _scores(data, weights)


def central(data: Tcga, patients: Patients, seed: int) -> np.ndarray:
    """Return the test patients' scores after 30 epochs of Adam on some patients, (N,)."""
    region = Region(patients, generator(seed, "tcga/central"))
    model = initial(len(data.names), seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=CENTRAL_RATE)
    for _ in range(EPOCHS * -(-len(patients) // BATCH)):
        optimiser.zero_grad()
        region.loss(model).backward()
        optimiser.step()
    return _scores(data, to_arrays(model))


def baselines(data: Tcga) -> dict[str, Patients]:
    """Return whose patients FLamby trains on without federation, by the published names."""
    parts = data.training
    pooled = Patients(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.months for part in parts]),
        np.concatenate([part.event for part in parts]),
    )
    return {"Pooled Training": pooled} | {f"Local {k}": part for k, part in enumerate(parts)}
