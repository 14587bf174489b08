"""Weights as named arrays and as safetensors files; never pickle."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from protocol.errors import PayloadError

__all__ = ["from_arrays", "load", "save", "to_arrays"]


def to_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of every tensor of ``state_dict``, float32, C order, in the model's order.

    Raises
    ------
    PayloadError
        If a tensor is not float32: such a buffer (a counter, a running mean) has no average.
    """
    arrays = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype != torch.float32:
            raise PayloadError(
                f"Tensor '{name}' is {tensor.dtype}, expected float32; remove the layer with it."
            )
        # A copy in C order: channels-last strides are this machine's affair and never travel.
        arrays[name] = np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
    return arrays


def from_arrays(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy arrays into a model of the same layout.

    Raises
    ------
    PayloadError
        If a name is missing or unknown, or a shape, a type or a value (NaN, infinity) is not what
        the model holds; the model is then unchanged.
    """
    state = model.state_dict()
    missing, unknown = sorted(state.keys() - arrays.keys()), sorted(arrays.keys() - state.keys())
    if missing or unknown:
        what, name = ("no", missing[0]) if missing else ("an unknown", unknown[0])
        raise PayloadError(
            f"The weights have {what} tensor '{name}' ({len(missing)} missing, {len(unknown)} "
            "unknown); send the weights of the same network with the same options."
        )
    for name, tensor in state.items():
        array = arrays[name]
        if array.shape != tuple(tensor.shape) or array.dtype != np.float32:
            raise PayloadError(
                f"Tensor '{name}' is {array.dtype} {array.shape}, expected float32 "
                f"{tuple(tensor.shape)}; send the weights of the same network and options."
            )
        if not np.isfinite(array).all():
            raise PayloadError(f"Tensor '{name}' holds a value that is not finite; discard it.")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name], order="C")))


def save(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and metadata to a safetensors file, whole or not at all.

    Parameters
    ----------
    path : Path
        Target; an existing file is replaced.
    arrays : mapping of str to ndarray
        Written in C order.
    metadata : mapping of str to str
        Free text, e.g. the network, its options and the study; keys and values are strings.
    """
    # Written beside the target and renamed: a reader never sees half a file.
    partial = path.with_name(path.name + ".partial")
    # Not ascontiguousarray, which gives a number without an axis one.
    save_file({n: np.asarray(a, order="C") for n, a in arrays.items()}, partial, dict(metadata))
    partial.replace(path)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read arrays and metadata from a safetensors file.

    Raises
    ------
    PayloadError
        If the file is absent or not a safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise PayloadError(
            f"{path.name} is not a readable safetensors file; point to the file of a finished run."
        ) from error
