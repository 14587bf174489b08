"""Every network by the name that a study gives it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from protocol.errors import ConfigError
from shared_models.fcn import FCN
from shared_models.prognosis import Prognosis
from shared_models.sorting import Sorting
from shared_models.tabular import Tabular
from shared_models.unet import UNet

__all__ = ["NETWORKS", "build"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "fcn": FCN,
    "prognosis": Prognosis,
    "sorting": Sorting,
    "tabular": Tabular,
    "unet": UNet,
}
"""Every network by the name that a study's YAML gives it."""


def build(name: str, options: Mapping[str, Any], *, seed: int = 0) -> nn.Module:
    """Make a network with first weights that depend on the seed alone.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    options : mapping
        Keyword arguments of that network.
    seed : int
        Seed of the first weights; torch's global generator is left as it was.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or the network normalises over the batch.
    """
    if name not in NETWORKS:
        raise ConfigError(f"Network '{name}' is unknown; choose one of {', '.join(NETWORKS)}.")
    try:
        # torch's initialisers draw from the global generator: seeded inside a fork, then restored.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = NETWORKS[name](**options)
    except TypeError as error:
        raise ConfigError(
            f"The options of network '{name}' ({', '.join(options) or 'none'}) do not fit it: a "
            "name is unknown, missing or has a value of the wrong type; see its class."
        ) from error
    for place, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"Network '{name}' has a BatchNorm at '{place}', whose statistics mix patients and "
                "differ between hospitals; use GroupNorm instead."
            )
    return model
