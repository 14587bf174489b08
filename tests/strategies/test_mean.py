"""Laws of the streaming mean."""

import tracemalloc

import numpy as np
import pytest

from protocol.arrays import fingerprint
from protocol.errors import PayloadError
from strategies import mean as streaming
from strategies.mean import BLOCK, MAX_THREADS, RunningMean


def models(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "w": rng.standard_normal((3, BLOCK + 7)).astype(np.float32),
            "b": rng.standard_normal(5),
            "half": rng.standard_normal(5).astype(np.float16),
            "scalar": np.array(rng.standard_normal(), dtype=np.float32),
            "empty": np.zeros((0, 2), dtype=np.float32),
            "count": np.array([7, 2**40], dtype=np.int64),
        }
        for _ in range(count)
    ]


def mean_of(arrays: list[dict[str, np.ndarray]], weights: list[float]) -> dict[str, np.ndarray]:
    mean = RunningMean()
    for model, weight in zip(arrays, weights, strict=True):
        mean.add(model, weight)
    return mean.take()


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(a[k].astype(b[k].dtype).tobytes() == b[k].tobytes() for k in b)


def test_the_mean_of_one_is_that_one_to_the_bit() -> None:
    [model] = models(1)
    assert same_bits(mean_of([model], [3.0]), model)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [3.0, 17.0, 0.1], [1e-9, 1e9, 7.0]])
def test_the_mean_of_equal_models_is_that_model_to_the_bit(weights: list[float]) -> None:
    [model] = models(1)
    model["w"][0, :4] = [0.0, -0.0, 1e-45, -3e8]
    assert same_bits(mean_of([model] * 3, weights), model)


def test_the_mean_is_that_of_numpy_in_double_precision() -> None:
    arrays, weights = models(20), [float(w) for w in range(1, 21)]
    mean = mean_of(arrays, weights)
    for name in ("w", "b", "scalar"):
        exact = np.average(
            np.stack([m[name].astype(np.float64) for m in arrays]), axis=0, weights=weights
        )
        tolerance = 1e-14 if name == "b" else 3e-7
        np.testing.assert_allclose(mean[name], exact, rtol=0, atol=tolerance)


def test_the_scale_of_the_weights_is_irrelevant() -> None:
    arrays = models(3)
    # Powers of two, so that the ratios are the same numbers.
    assert fingerprint(mean_of(arrays, [1, 2, 5])) == fingerprint(mean_of(arrays, [4, 8, 20]))


def test_a_hand_worked_case() -> None:
    # (1 * 1 + 3 * 5) / 4 = 4: m = 1, then 1 - (1 - 5) * 3/4 = 4.
    one, five = ({"w": np.array([v], dtype=np.float32)} for v in (1.0, 5.0))
    assert mean_of([one, five], [1, 3])["w"].tolist() == [4.0]


def test_the_mean_stays_in_single_precision_and_counters_in_double() -> None:
    dtypes = {name: array.dtype.name for name, array in mean_of(models(2), [1, 2]).items()}
    assert dtypes == {
        "w": "float32",
        "b": "float64",
        "half": "float32",
        "scalar": "float32",
        "empty": "float32",
        "count": "float64",
    }


def test_what_is_added_is_only_read() -> None:
    first, second = models(2)
    before = fingerprint(first), fingerprint(second)
    for model in (first, second):
        for array in model.values():
            array.flags.writeable = False
    mean_of([first, second, first], [1, 2, 3])
    assert (fingerprint(first), fingerprint(second)) == before


def test_folding_needs_one_block_and_not_one_model() -> None:
    model = {"w": np.ones(8 * 2**20, dtype=np.float32)}
    mean = RunningMean()
    mean.add(model, 1)
    tracemalloc.start()
    try:
        for _ in range(4):
            mean.add(model, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A block of each thread, and what holds the pieces together.
    assert peak < (MAX_THREADS + 1) * BLOCK * 4


@pytest.mark.parametrize("weight", [0.0, -10.0, float("nan"), float("inf")])
def test_a_weight_is_finite_and_above_zero(weight: float) -> None:
    with pytest.raises(PayloadError, match="expected above 0; leave such a site out"):
        RunningMean().add(models(1)[0], weight)


def test_there_is_no_mean_of_nothing() -> None:
    with pytest.raises(PayloadError, match="There is no mean of no models"):
        RunningMean().take()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_is_irrelevant_to_the_bit(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SPAN", 1000)
    monkeypatch.setattr(streaming, "BLOCK", 300)
    monkeypatch.setattr(streaming, "MAX_THREADS", threads)
    rng = np.random.default_rng(5)
    # The last one waits for nobody.
    models = [{"w": rng.standard_normal((41, 83)).astype(np.float32)} for _ in range(6)]
    running = RunningMean()
    expected = models[0]["w"].copy()
    for number, model in enumerate(models):
        running.add(model, 2.0)
        expected -= (expected - model["w"]) * np.float32(1 / (number + 1))
    assert running.take()["w"].tobytes() == expected.tobytes()
