"""Every strategy by name, and what all of them have in common."""

import numpy as np
import pytest

from protocol.errors import ConfigError
from strategies import STRATEGIES, build

ARRAYS = {"w": np.array([1.0, -2.0], dtype=np.float32), "n": np.array(3, dtype=np.int64)}
CHANGE = {"control/w": np.array([0.5, -1.0], dtype=np.float32)}
MEAN = {"w": np.array([2.0, -2.0], dtype=np.float32), "n": np.array(3.5), **CHANGE}


def test_the_strategies_are_these() -> None:
    assert set(STRATEGIES) == {
        "fedavg",
        "fedprox",
        "fedavgm",
        "fedadam",
        "fedyogi",
        "fedadagrad",
        "scaffold",
    }


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_change_at_the_hospitals_is_no_change_at_the_centre(name: str) -> None:
    strategy = build(name, {})
    mean = {"w": ARRAYS["w"].copy(), "n": np.array(3.0), **CHANGE}
    new, _ = strategy.step(ARRAYS, mean, strategy.init(ARRAYS))
    assert new["w"].tobytes() == ARRAYS["w"].tobytes()


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_step_is_a_function_of_its_arguments(name: str) -> None:
    strategy = build(name, {})
    state = strategy.init(ARRAYS)
    before = {key: value.copy() for key, value in state.items()}
    (first, after), (second, again) = (
        strategy.step(ARRAYS, dict(MEAN), state),
        strategy.step(ARRAYS, dict(MEAN), state),
    )
    assert first["w"].tobytes() == second["w"].tobytes()
    assert {k: v.tobytes() for k, v in after.items()} == {k: v.tobytes() for k, v in again.items()}
    assert {k: v.tobytes() for k, v in state.items()} == {k: v.tobytes() for k, v in before.items()}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_step_stays_in_single_precision_and_counters_take_the_mean(name: str) -> None:
    strategy = build(name, {})
    new, state = strategy.step(ARRAYS, dict(MEAN), strategy.init(ARRAYS))
    assert new["w"].dtype == np.float32
    assert float(new["n"]) == 3.5
    assert {array.dtype.name for array in state.values()} <= {"float32"}
    assert {key.split("/", 1)[1] for key in state} <= {"w"}


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_federated_averaging_is_the_mean(name: str) -> None:
    strategy = build(name, {})
    assert strategy.step(ARRAYS, MEAN, strategy.init(ARRAYS)) == (MEAN, {})


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no strategy 'fedsgd'; write one of fedadagrad, fedadam"):
        build("fedsgd", {})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("fedavg", {"momentum": 0.9}, "fedavg has no option 'momentum'; its options are none"),
        ("fedavgm", {"beta": 0.9}, "options are learning_rate, momentum"),
        ("fedavgm", {"momentum": 1.0}, r"momentum is 1.0, expected in \[0, 1\)"),
        ("fedavgm", {"learning_rate": 0.0}, "learning_rate is 0.0, expected above 0"),
        ("fedadam", {"second_moment": 1.0}, "no option 'second_moment'"),
        ("fedadam", {"beta_1": -0.1}, r"beta_1 is -0.1, expected in \[0, 1\)"),
        ("fedyogi", {"beta_2": 1.0}, r"beta_2 is 1.0, expected in \[0, 1\)"),
        ("fedadagrad", {"tau": 0.0}, "tau is 0.0, expected above 0"),
        ("scaffold", {"learning_rate": 0.0}, "learning_rate is 0.0, expected above 0"),
        ("scaffold", {"momentum": 0.5}, "its options are learning_rate"),
    ],
)
def test_an_option_out_of_place_is_refused(
    name: str, options: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(name, options)
