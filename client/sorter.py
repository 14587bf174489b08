"""The sorting network at work: it decides where the rules are unsure, and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from client.intake.decoder import Decoder
from client.intake.parts import UNSURE_BELOW, Part
from client.series_features import part_features, part_picture
from protocol.errors import ConfigError
from protocol.series import SEQUENCES, VIEWS
from shared_models.sorting import Sorting, split_logits
from shared_models.weights import from_arrays, load

__all__ = ["decide", "predict", "settle"]


def predict(
    model: torch.nn.Module, images: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of the sequences (N, 9) and of the views (N, 11)."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(images), torch.from_numpy(features)).float()
    sequence, view = split_logits(logits)
    return sequence.softmax(1).numpy(), view.softmax(1).numpy()


def settle(part: Part, sequence: np.ndarray, view: np.ndarray) -> Part:
    """Return a part with the network's most likely labels; of one part, (9,) and (11,)."""
    certain = float(min(sequence.max(), view.max()))
    return replace(
        part,
        sequence=SEQUENCES[int(sequence.argmax())],
        view=VIEWS[int(view.argmax())],
        confidence=round(certain, 3),
        reason=f"the network; the rules were unsure: {part.reason}",
        by="network",
    )


def decide(parts: Sequence[Part], sorter: Path, decoder: Decoder) -> list[Part]:
    """Let the network decide the unsure parts of one study.

    A part whose pixels cannot be read keeps the rules' word.
    """
    unsure = [p for p in parts if p.by == "rule" and p.confidence < UNSURE_BELOW]
    pictures = {id(part): part_picture(part, decoder) for part in unsure}
    decided: list[Part] = []
    for part in parts:
        picture = pictures.get(id(part))
        if picture is None:
            decided.append(part)
            continue
        sequence, view = predict(
            _model(sorter, sorter.stat().st_mtime_ns),
            picture[None],
            part_features(part, parts)[None],
        )
        decided.append(settle(part, sequence[0], view[0]))
    return decided


@lru_cache(maxsize=4)
def _model(path: Path, mtime_ns: int) -> Sorting:
    arrays, _ = load(path)
    channels = _widths(arrays)
    model = Sorting(channels, int(arrays["outputs.weight"].shape[1]) if channels else 1)
    from_arrays(model, arrays)
    return model.eval()


def _widths(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    names = [name for name in arrays if name.startswith("encoder.") and arrays[name].ndim == 4]
    names.sort(key=lambda name: int(name.split(".")[1]))
    if not names or "outputs.weight" not in arrays:
        raise ConfigError("site.yaml: images.sorter is no sorting network; correct the path.")
    return tuple(int(arrays[name].shape[0]) for name in names)
