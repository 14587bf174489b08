from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from protocol.errors import PayloadError
from shared_models.networks import build
from shared_models.weights import from_arrays, load, save, to_arrays

OPTIONS = {"channels": (4, 8, 8)}


def test_there_and_back_to_the_bit_whatever_the_memory_format() -> None:
    model, other = build("unet", OPTIONS, seed=1), build("unet", OPTIONS, seed=2)
    model.to(memory_format=torch.channels_last)
    arrays = to_arrays(model)
    assert list(arrays) == list(model.state_dict())
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in arrays.values())
    from_arrays(other, arrays)
    again = to_arrays(other)
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)


def test_arrays_are_copies() -> None:
    model = build("unet", OPTIONS)
    arrays = to_arrays(model)
    before = {name: a.copy() for name, a in arrays.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


def test_a_file_keeps_bits_and_metadata(tmp_path: Path) -> None:
    arrays = to_arrays(build("unet", OPTIONS))
    save(tmp_path / "w.safetensors", arrays, {"network": "unet"})
    found, metadata = load(tmp_path / "w.safetensors")
    assert metadata == {"network": "unet"}
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file at all"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PayloadError, match=r"w\.safetensors is not a readable safetensors file"):
        load(path)


def _lose(a: dict[str, np.ndarray], name: str) -> None:
    del a[name]


def _add(a: dict[str, np.ndarray], name: str) -> None:
    a["extra"] = a[name]


def _flatten(a: dict[str, np.ndarray], name: str) -> None:
    a[name] = a[name].ravel()


def _widen(a: dict[str, np.ndarray], name: str) -> None:
    a[name] = a[name].astype(np.float64)


def _poison(a: dict[str, np.ndarray], name: str) -> None:
    a[name][...] = np.nan


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_lose, "no tensor 'head.logits.bias' .1 missing, 0 unknown."),
        (_add, "an unknown tensor 'extra' .0 missing, 1 unknown."),
        (_widen, "Tensor 'head.logits.bias' is float64 .16,., expected float32 .16,."),
        (_poison, "Tensor 'head.logits.bias' holds a value that is not finite"),
    ],
)
def test_other_weights_are_refused_and_the_model_is_unchanged(spoil, sentence: str) -> None:  # type: ignore[no-untyped-def]
    model = build("unet", OPTIONS)
    before = to_arrays(model)
    arrays = {name: a + 1 for name, a in before.items()}
    spoil(arrays, "head.logits.bias")
    with pytest.raises(PayloadError, match=sentence):
        from_arrays(model, arrays)
    assert all(np.array_equal(a, before[name]) for name, a in to_arrays(model).items())


def test_another_shape_is_refused() -> None:
    model = build("unet", OPTIONS)
    arrays = to_arrays(model)
    _flatten(arrays, "head.logits.weight")
    with pytest.raises(
        PayloadError, match=r"is float32 \(1152,\), expected float32 \(16, 8, 3, 3\)"
    ):
        from_arrays(model, arrays)


def test_a_counter_has_no_average() -> None:
    model = nn.Module()
    model.register_buffer("seen", torch.zeros((), dtype=torch.int64))
    with pytest.raises(PayloadError, match=r"'seen' is torch.int64, expected float32"):
        to_arrays(model)
