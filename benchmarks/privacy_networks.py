"""The demo's networks and phantom patients to train them on, small enough to attack by the dozen.

Four hospitals of one vendor each; their patients differ in disease, scanner and risk as the
phantoms' do. Letters: N patients, S slices of each.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privacy.audit.steps import released_steps
from privacy.gradients import PatientLoss
from privacy.noise import NoiseSource
from shared_models.channel_norm import ChannelNorm
from shared_models.heads.logistic_hazard import interval_targets
from shared_models.networks import build
from shared_models.objectives import prognosis_objective, segmentation_objective
from sim.config import ImageConfig, OutcomeConfig, QuirkConfig
from sim.examination import examine
from sim.outcomes import baseline_rate, draw_outcome
from sim.patients import draw_patient

__all__ = [
    "Subject",
    "flat",
    "segmentation_subject",
    "survival_subject",
    "train_plainly",
    "train_privately",
    "twice_differentiable",
]

VENDORS = ("siemens", "philips", "ge", "canon")
# The share of each disease at each hospital: dcm, hcm, ischaemic, normal.
CASE_MIX = ((0.7, 0.1, 0.1, 0.1), (0.1, 0.7, 0.1, 0.1), (0.1, 0.1, 0.7, 0.1), (0.3, 0.3, 0.3, 0.1))
LOG_FRAILTY = (-0.3, -0.1, 0.1, 0.3)
FIELDS = (
    "age", "sex", "nyha", "qrs", "nt_probnp", "creatinine", "nsvt", "lbbb", "family_scd",
)  # fmt: skip
CUTS_MONTHS = np.arange(6.0, 61.0, 6.0)
SIZE_PX, NUM_SLICES = 32, 3


@dataclass(frozen=True)
class Subject:
    """A network under attack.

    Attributes
    ----------
    patients : dict of str to Tensor
        (N, ...) each.
    hospital : ndarray
        (N,) int, 0..3.
    make : callable
        Seed to network.
    loss : callable
        (model, patients) to (N,).
    plain, private : dict
        Options of `train_plainly` and of `train_privately` (C, sigma, q, T, rate).
    """

    name: str
    patients: dict[str, Tensor]
    hospital: np.ndarray
    make: Callable[[int], nn.Module]
    loss: PatientLoss
    plain: dict[str, Any]
    private: dict[str, Any]

    def of(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return some patients' records."""
        return {name: values[torch.from_numpy(rows)] for name, values in self.patients.items()}


def _drawn(per_hospital: int, seed: int) -> list[tuple[int, Any, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    found = []
    for site, mix in enumerate(CASE_MIX):
        for disease in rng.choice(["dcm", "hcm", "ischaemic", "normal"], per_hospital, p=mix):
            found.append((site, draw_patient(disease, rng, image_sd=1.0, record_sd=0.75), rng))
    return found


def segmentation_subject(per_hospital: int = 24, seed: int = 0) -> Subject:
    """Return the demo's U-Net with three short-axis slices (32 x 32) of each phantom."""
    images, labels, sites = [], [], []
    config = ImageConfig(cine_frames=4, matrix_px=64, slice_step_mm=15.0, sublevels=1)
    for site, patient, rng in _drawn(per_hospital, seed):
        exam = examine(patient, VENDORS[site], 1.5, config, QuirkConfig(), rng)
        cine = next(series for series in exam.series if series.kind == "cine")
        stack, mask = cine.stored[0].astype(np.float32), exam.labels[0]
        sizes = (mask > 0).sum(axis=(1, 2))
        chosen = np.sort(np.argsort(-sizes, kind="stable")[:NUM_SLICES])
        centre = np.argwhere(mask[chosen] > 0)[:, 1:].mean(axis=0).round().astype(int)
        top, left = np.clip(centre - SIZE_PX // 2, 0, stack.shape[-1] - SIZE_PX)
        window = (chosen, slice(top, top + SIZE_PX), slice(left, left + SIZE_PX))
        images.append(np.clip(stack[window] / np.percentile(stack[window], 99), 0, 1))
        labels.append(mask[window])
        sites.append(site)
    return Subject(
        "U-Net of the demo, 3 slices of 32 x 32",
        {
            "images": torch.from_numpy(np.stack(images))[:, :, None],
            "labels": torch.from_numpy(np.stack(labels).astype(np.int64)),
        },
        np.array(sites),
        lambda start: build("unet", {"channels": [8, 16, 32, 64]}, seed=start),
        _slices_loss,
        {"num_steps": 100, "batch": 8, "learning_rate": 3e-3},
        {"noise_multiplier": 1.0, "sampling_rate": 0.15, "num_steps": 60, "clip_norm": 1.0,
         "learning_rate": 0.1},
    )  # fmt: skip


def _slices_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    number, slices = batch["labels"].shape[:2]
    each = {name: values.flatten(0, 1) for name, values in batch.items()}
    return segmentation_objective(model, each).reshape(number, slices).mean(dim=1)


def survival_subject(per_hospital: int = 60, seed: int = 0) -> Subject:
    """Return the tabular network with discrete hazards on the phantoms' records and outcomes."""
    config = OutcomeConfig()
    rows, months, events, sites = [], [], [], []
    for site, patient, rng in _drawn(per_hospital, seed):
        outcome = draw_outcome(config, baseline_rate(config, LOG_FRAILTY[site]), patient.eta, rng)
        rows.append([patient.record[field] for field in FIELDS])
        months.append(outcome.months)
        events.append(outcome.event)
        sites.append(site)
    table = np.array(rows, np.float32)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    targets = interval_targets(np.array(months), np.array(events), CUTS_MONTHS)
    options = {"num_tabular": len(FIELDS), "num_intervals": len(CUTS_MONTHS)}
    return Subject(
        "Tabular survival network, 9 fields",
        {
            "tabular": torch.from_numpy(table),
            "missing": torch.zeros(table.shape),
            **{name: torch.from_numpy(values) for name, values in targets.items()},
        },
        np.array(sites),
        lambda start: build("tabular", options, seed=start),
        prognosis_objective,
        {"num_steps": 300, "batch": 16, "learning_rate": 3e-3},
        {"noise_multiplier": 1.0, "sampling_rate": 0.15, "num_steps": 60, "clip_norm": 1.0,
         "learning_rate": 0.1},
    )  # fmt: skip


def train_plainly(
    model: nn.Module,
    patients: Mapping[str, Tensor],
    loss: PatientLoss,
    rng: np.random.Generator,
    *,
    num_steps: int,
    batch: int,
    learning_rate: float,
) -> None:
    """Train by AdamW on random batches, without privacy."""
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate)
    number = len(next(iter(patients.values())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        model.train()
        for _ in range(num_steps):
            rows = torch.from_numpy(rng.choice(number, min(batch, number), replace=False))
            optimiser.zero_grad()
            loss(model, {name: values[rows] for name, values in patients.items()}).mean().backward()
            optimiser.step()
        model.eval()


def train_privately(
    model: nn.Module,
    patients: Mapping[str, Tensor],
    loss: PatientLoss,
    source: NoiseSource,
    **options: Any,
) -> None:
    """Train by the project's private steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed())
        model.train()
        for _ in released_steps(model, patients, loss, source, **options):
            pass
        model.eval()


def flat(model: nn.Module) -> np.ndarray:
    """Return all weights, (D,)."""
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()]).numpy()


def twice_differentiable(model: nn.Module) -> nn.Module:
    """Return a float64 copy whose gradients can be differentiated.

    Our ChannelNorm's backward pass takes the statistics for constants, which is right once and
    wrong the second time; torch's GroupNorm computes the same.
    """
    found = copy.deepcopy(model).double().eval()
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ChannelNorm):
                norm = nn.GroupNorm(child.num_groups, child.num_channels, child.eps).double()
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    return found
