"""Patients who do not exist, for every network and every loss that may be private."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.private_training import mean_over_slices
from privacy.gradients import PatientLoss
from shared_models.heads import HEADS
from shared_models.networks import NETWORKS, build
from shared_models.objectives import prognosis_objective, segmentation_objective
from shared_models.sorting import NUM_FEATURES, sorting_objective

CUTS = np.array([12.0, 24.0, 36.0, 48.0])
NUM_TABULAR = 5
PRIVATE_HEADS = sorted(name for name, head in HEADS.items() if head.decomposable)
Case = tuple[nn.Module, dict[str, Tensor], PatientLoss]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a model without weights of zero, at which gradients vanish, and without dropout."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(seed)))
    return model.eval()


def segmentation(name: str, options: dict[str, Any], num_patients: int, num_slices: int) -> Case:
    shape = (num_patients, num_slices)
    patients = {
        "images": torch.rand(*shape, 1, 16, 16, generator=generator(1)),
        "labels": torch.randint(0, 4, (*shape, 16, 16), generator=generator(2)),
    }
    loss = mean_over_slices(segmentation_objective)
    return moved(build(name, options)), patients, loss


def sorting(num_patients: int, num_series: int = 2) -> Case:
    shape = (num_patients, num_series)
    patients = {
        "images": torch.rand(*shape, 2, 24, 24, generator=generator(1)),
        "features": torch.randn(*shape, NUM_FEATURES, generator=generator(2)),
        "sequence": torch.randint(0, 9, shape, generator=generator(3)),
        "view": torch.randint(0, 11, shape, generator=generator(4)),
    }
    model = moved(build("sorting", {"channels": [4, 6], "hidden": 7}))
    return model, patients, mean_over_slices(sorting_objective)


def survival(name: str, head: str, num_patients: int, **options: Any) -> Case:
    model = build(
        name,
        {"num_tabular": NUM_TABULAR, "num_intervals": len(CUTS), "head": head, **options},
    )
    rng = np.random.default_rng(3)
    months = rng.uniform(1, 60, num_patients)
    event = (np.arange(num_patients) + 1) % (HEADS[head].num_causes + 1)
    targets = HEADS[head].targets(months, event, CUTS)
    present = torch.ones(num_patients, 3)
    present[0] = 0
    present[-1, 1:] = 0
    patients = {
        "images": torch.rand(num_patients, 3, 3, 16, 16, generator=generator(1)),
        "slice_present": present,
        "tabular": torch.randn(num_patients, NUM_TABULAR, generator=generator(2)),
        "missing": (torch.rand(num_patients, NUM_TABULAR, generator=generator(4)) < 0.3).float(),
        **{key: torch.from_numpy(values) for key, values in targets.items()},
    }
    return moved(model), patients, partial(prognosis_objective, head=HEADS[head])


IMAGES = {"channels": [4, 8], "embedding": 3, "hidden": 6}
CASES: dict[str, Callable[[int], Case]] = {
    "fcn": lambda n: segmentation(
        "fcn", {"channels": [3, 4], "num_convs": [1, 1], "side_channels": 3}, n, 2
    ),
    "prognosis": lambda n: survival("prognosis", "logistic_hazard", n, **IMAGES),
    "prognosis, not proportional": lambda n: survival(
        "prognosis", "logistic_hazard", n, **IMAGES, proportional=False
    ),
    "prognosis, linear": lambda n: survival("prognosis", "pc_hazard", n, channels=[], hidden=0),
    "sorting": sorting,
    "tabular": lambda n: survival("tabular", "logistic_hazard", n),
    "unet": lambda n: segmentation("unet", {"channels": [4, 6, 8]}, n, 3),
    "unet, deep supervision": lambda n: segmentation(
        "unet", {"channels": [4, 6, 64], "deep_supervision": True, "residual": False}, n, 2
    ),
    "unet, full resolution": lambda n: segmentation(
        "unet", {"channels": [4, 6], "stem_stride": 1}, n, 1
    ),
} | {
    f"head {head}": partial(lambda n, head: survival("prognosis", head, n, **IMAGES), head=head)
    for head in PRIVATE_HEADS
}
"""For every network of the plain dict, and every head that is a sum over patients."""
assert {name.split(",")[0] for name in CASES if not name.startswith("head")} == set(NETWORKS)
