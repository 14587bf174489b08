"""The sorting network: shapes, independence of the batch, and that it can learn."""

import numpy as np
import pytest
import torch

from client.training import train
from protocol.errors import ConfigError
from protocol.series import SEQUENCES, VIEWS
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.networks import build
from shared_models.sorting import NUM_FEATURES, sorting_objective, split_logits


def _batch(num: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(num) % 3
    images = torch.rand(num, 2, 48, 48, generator=generator)
    images[:, 1] += label[:, None, None] * 0.5
    features = torch.rand(num, NUM_FEATURES, generator=generator)
    features[:, 0] = (label == 1).float()
    return {"images": images, "features": features, "sequence": label, "view": 2 - label}


def test_logits_of_both_questions_whatever_the_company() -> None:
    model = build("sorting", {}, seed=1).eval()
    batch = _batch(5)
    with torch.no_grad():
        logits = model(batch["images"], batch["features"])
        alone = model(batch["images"][2:3], batch["features"][2:3])
    sequence, view = split_logits(logits)
    assert sequence.shape == (5, len(SEQUENCES)) and view.shape == (5, len(VIEWS))
    torch.testing.assert_close(logits[2:3], alone, rtol=1e-5, atol=1e-5)
    assert sorting_objective(model, batch).shape == (5,)


def test_it_learns_from_pictures_and_numbers() -> None:
    model = build("sorting", {"channels": [4, 8], "hidden": 16}, seed=1)
    options = LocalTraining(epochs=30, learning_rate=0.02, batch_size=12, augment=False)
    batch = _batch(24)
    train(
        model, batch, sorting_objective, options, learning_rate=0.02,
        rng=np.random.default_rng(0), execution=Execution(threads=1),
    )  # fmt: skip
    sequence, view = split_logits(model(batch["images"], batch["features"]))
    assert (sequence.argmax(1) == batch["sequence"]).all()
    assert (view.argmax(1) == batch["view"]).all()


def test_impossible_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be 1 at least"):
        build("sorting", {"channels": [4, 0]})
