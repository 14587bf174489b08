"""Server optimisers against hand-worked steps and against Flower's own classes."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedYogi
from flwr.serverapp.strategy import FedAvgM as FlowerFedAvgM

from protocol.arrays import Arrays
from sim.grid import LocalGrid
from strategies import build
from strategies.server_optimizer import FedOpt

NUM_ROUNDS = 5


def one(value: float) -> Arrays:
    return {"w": np.array([value])}


def test_two_steps_of_momentum_by_hand() -> None:
    # x = 1, means 2 then 2: m = 1, x = 1 + .5 = 1.5; m = .9 + .5 = 1.4, x = 1.5 + .7 = 2.2.
    strategy = build("fedavgm", {"learning_rate": 0.5, "momentum": 0.9})
    x, state = strategy.step(one(1.0), one(2.0), strategy.init(one(1.0)))
    assert x["w"][0] == pytest.approx(1.5, abs=1e-15)
    x, state = strategy.step(x, one(2.0), state)
    assert x["w"][0] == pytest.approx(2.2, abs=1e-15)
    assert state["m/w"][0] == pytest.approx(1.4, abs=1e-15)


def test_momentum_zero_and_rate_one_is_the_mean() -> None:
    strategy = build("fedavgm", {"learning_rate": 1.0, "momentum": 0.0})
    x, _ = strategy.step(one(1.0), one(2.5), strategy.init(one(1.0)))
    assert x["w"][0] == 2.5


# x = 1, mean = 3, so D = 2, D^2 = 4; b1 = .5, so m = 1; b2 = .75, tau = 1, v_{-1} = 1, eta = 1.
@pytest.mark.parametrize(
    ("name", "v"),
    [
        ("fedadagrad", 1.0 + 4.0),
        ("fedadam", 0.75 * 1.0 + 0.25 * 4.0),
        ("fedyogi", 1.0 + 0.25 * 4.0),
    ],
)
def test_a_step_of_algorithm_2_by_hand(name: str, v: float) -> None:
    options = {"learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "tau": 1.0}
    strategy = build(name, options)
    x, state = strategy.step(one(1.0), one(3.0), strategy.init(one(1.0)))
    assert state["m/w"][0] == 1.0
    assert state["v/w"][0] == v
    assert x["w"][0] == pytest.approx(1.0 + 1.0 / (np.sqrt(v) + 1.0), abs=1e-15)


def test_yogi_lets_v_fall_by_at_most_the_square_of_the_step() -> None:
    # v = 9 > D^2 = 4: v falls by (1 - b2) D^2 = 1.
    strategy = build("fedyogi", {"beta_2": 0.75, "initial_v": 9.0})
    _, state = strategy.step(one(1.0), one(3.0), strategy.init(one(1.0)))
    assert state["v/w"][0] == 8.0


def test_the_second_moment_starts_at_tau_squared() -> None:
    strategy = build("fedadam", {"tau": 0.5})
    assert strategy.init(one(1.0))["v/w"][0] == 0.25


def start() -> Arrays:
    rng = np.random.default_rng(1)
    return {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(2)}


def reply(arrays: Arrays, site: int, round_index: int) -> Arrays:
    rng = np.random.default_rng([site, round_index])
    return {name: 0.9 * x + 0.1 * rng.standard_normal(x.shape) for name, x in arrays.items()}


client = ClientApp()


@client.train()
def train(message: Message, context: object) -> Message:
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    site = int(context.node_config["site"])  # type: ignore[attr-defined]
    new = reply(arrays, site, int(message.content["config"]["server-round"]))
    records = {
        "arrays": ArrayRecord({name: Array(array) for name, array in new.items()}),
        "metrics": MetricRecord({"num-examples": site + 1}),
    }
    return Message(RecordDict(records), reply_to=message)


def flowers(strategy: FedAvg) -> list[Arrays]:
    """Global models after each round of Flower's own strategy and loop."""
    seen: list[Arrays] = []

    def keep(server_round: int, arrays: ArrayRecord) -> None:
        seen.append({name: array.numpy() for name, array in arrays.items()})

    strategy.start(
        LocalGrid(client, [{"site": site} for site in range(3)]),
        ArrayRecord({name: Array(array) for name, array in start().items()}),
        num_rounds=NUM_ROUNDS,
        train_config=ConfigRecord(),
        evaluate_fn=keep,
    )
    return seen[1:]


def weighted(arrays: Arrays, round_index: int) -> Arrays:
    replies = [reply(arrays, site, round_index) for site in range(3)]
    return {
        name: np.average([r[name] for r in replies], axis=0, weights=[1, 2, 3]) for name in arrays
    }


COMMON = {"fraction_evaluate": 0.0, "min_train_nodes": 3, "min_available_nodes": 3}


@pytest.mark.parametrize(
    ("flower", "name", "options"),
    [
        (FedAvg(**COMMON), "fedavg", {}),
        (
            FlowerFedAvgM(**COMMON, server_learning_rate=0.7, server_momentum=0.9),
            "fedavgm",
            {"learning_rate": 0.7, "momentum": 0.9},
        ),
        (
            FedAdagrad(**COMMON, eta=0.1, tau=1e-3),
            "fedadagrad",
            {"learning_rate": 0.1, "beta_1": 0.0, "tau": 1e-3, "initial_v": 0.0},
        ),
        (
            FedYogi(**COMMON, eta=0.1, beta_1=0.8, beta_2=0.95, tau=1e-2),
            "fedyogi",
            {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-2, "initial_v": 0.0},
        ),
    ],
)
def test_rounds_agree_with_flowers_own_strategy(
    flower: FedAvg, name: str, options: dict[str, float]
) -> None:
    strategy = build(name, options)
    arrays, state = start(), strategy.init(start())
    for round_index, expected in enumerate(flowers(flower), start=1):
        arrays, state = strategy.step(arrays, weighted(arrays, round_index), state)
        for key, value in expected.items():
            np.testing.assert_allclose(arrays[key], value, rtol=1e-12)


def test_adam_agrees_with_flowers_up_to_its_bias_correction() -> None:
    # Flower multiplies eta by sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)) (Kingma and Ba 2014), which
    # Reddi's Algorithm 2 does not; with that rate in each round the two are the same.
    eta, b1, b2 = 0.1, 0.8, 0.95
    strategy = FedOpt("adam", eta, b1, b2, tau=1e-2, initial_v=0.0)
    arrays, state = start(), strategy.init(start())
    flower = FedAdam(**COMMON, eta=eta, beta_1=b1, beta_2=b2, tau=1e-2)
    for t, expected in enumerate(flowers(flower), start=1):
        rate = eta * np.sqrt(1 - b2 ** (t + 1.0)) / (1 - b1 ** (t + 1.0))
        corrected = replace(strategy, learning_rate=float(rate))
        arrays, state = corrected.step(arrays, weighted(arrays, t), state)
        for key, value in expected.items():
            np.testing.assert_allclose(arrays[key], value, rtol=1e-12)
