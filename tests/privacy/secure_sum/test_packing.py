"""The vector of a model: sums of it are the weighted mean, counts and loss of all together."""

import numpy as np
import pytest

from privacy.secure_sum.packing import Packing
from protocol.arrays import layout
from protocol.errors import PrivacyError

BASE = {
    "weight": np.ones((3, 2), np.float32),
    "bias": np.zeros(2, np.float64),
    "steps": np.array(4, np.int64),
}


def model(shift: float) -> dict[str, np.ndarray]:
    return {
        "weight": BASE["weight"] + np.float32(shift),
        "bias": BASE["bias"] - shift,
        "steps": BASE["steps"] + 1,
    }


def test_the_sum_is_the_weighted_mean_of_the_models() -> None:
    packing = Packing(layout(BASE), 24, 4)
    cap, shifts, patients = 90.0, [0.1, -0.02, 0.003], [90, 30, 7]
    total = np.zeros(packing.num_words, np.uint32)
    for shift, n in zip(shifts, patients, strict=True):
        counts = {"weight": n, "num_patients": n, "num_events": n // 3}
        change = packing.flat(model(shift), BASE)
        total += packing.pack(change, n / cap, counts, {"loss": 10 * shift})
    packed = packing.unpack(total)
    assert packed.counts == {"weight": 127, "num_patients": 127, "num_events": 42}
    share = packed.counts["weight"] / cap
    mean = np.average(shifts, weights=patients)
    np.testing.assert_allclose(packed.update["weight"] / share, mean, atol=3 * 2**-24)
    np.testing.assert_allclose(packed.update["bias"] / share, -mean, atol=3 * 2**-24)
    assert round(float(packed.update["steps"]) / share) == 1
    assert packed.metrics["loss"] / share == pytest.approx(10 * mean, abs=3 * 2**-16)
    assert {name: a.shape for name, a in packed.update.items()} == {
        name: a.shape for name, a in BASE.items()
    }


def test_a_weight_beyond_what_was_registered_is_refused_at_the_hospital() -> None:
    packing = Packing(layout(BASE), 24, 4)
    counts = {"weight": 91, "num_patients": 91, "num_events": 0}
    with pytest.raises(PrivacyError, match=r"weighs 1\.0\d+ times the largest weight"):
        packing.pack(packing.flat(model(0.1), BASE), 91 / 90, counts, {})


def test_an_update_beyond_the_range_is_refused_at_the_hospital() -> None:
    packing = Packing(layout(BASE), 24, 10)
    counts = {"weight": 1, "num_patients": 1, "num_events": 0}
    with pytest.raises(PrivacyError, match="The update holds a magnitude of 13"):
        packing.pack(packing.flat(model(13.0), BASE), 1.0, counts, {})
