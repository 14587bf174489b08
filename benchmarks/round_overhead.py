"""What a round costs beyond the training in it: LocalGrid against the same function called.

Four hospitals train a U-Net of MONAI's size (16-256, residual units, 1.6 million weights) for eight
steps of sixteen slices each: one epoch of about seven patients, a small hospital's round; ``--steps
2`` shows the least favourable case. Directly: the same function on the
same arrays in a plain loop, and numpy's weighted mean. Through the house: Grid, payloads, the real
ClientApp, checks, the streaming mean, a checkpoint and an audit log after every round. Both end
with the same losses. The two are run in turns and the fastest round of each is compared, as the
noise of a shared machine only ever adds.

Run: ``python benchmarks/round_overhead.py``. The claim: at most 1.05 times.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

import itertools

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from monai.networks.nets import UNet
from torch.nn.functional import cross_entropy

from protocol.arrays import Arrays
from protocol.config import Study
from protocol.payload import Answer, TrainReply, TrainRequest
from server.checkpoints import Checkpoints
from server.hospitals import join
from server.rounds import run_rounds
from sim.grid import LocalGrid
from strategies import build

SITES, NUM_ROUNDS, BATCH, SIDE = ("A", "B", "C", "D"), 3, 16, 128
REPEATS, BAR = 2, 1.05

_parser = argparse.ArgumentParser(description=__doc__)
_parser.add_argument("--steps", type=int, default=8, help="of training at each hospital")
NUM_STEPS = _parser.parse_args().steps


def network() -> torch.nn.Module:
    """Return the U-Net of the speed benchmark, always with the same weights."""
    torch.manual_seed(0)
    norm = ("group", {"num_groups": 4})
    model = UNet(2, 1, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm=norm)
    return model.to(memory_format=torch.channels_last)


def initial() -> Arrays:
    """Return its weights as arrays."""
    return {name: tensor.numpy().copy() for name, tensor in network().state_dict().items()}


def train(site: str, arrays: Arrays) -> tuple[Arrays, float]:
    """Train a hospital's few steps and return the weights and the last loss."""
    model = network()
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    rng = torch.Generator().manual_seed(SITES.index(site))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(NUM_STEPS):
        image = torch.randn(BATCH, 1, SIDE, SIDE, generator=rng)
        labels = (image[:, 0] > 0).long()
        optimizer.zero_grad()
        loss = cross_entropy(model(image), labels)
        loss.backward()
        optimizer.step()
    state = model.state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}, float(loss.detach())


app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say the name."""
    answer = Answer({"site": context.node_config["site"], "version": "0"})
    return Message(answer.to_records(), reply_to=message)


@app.train("segment")
def train_round(message: Message, context: Context) -> Message:
    """Train through the messages."""
    request = TrainRequest.from_records(message.content)
    arrays, loss = train(str(context.node_config["site"]), request.arrays)
    return Message(TrainReply(arrays, 10, 2, {"loss": loss}).to_records(), reply_to=message)


def directly() -> tuple[list[float], list[float]]:
    """Return the seconds of each round and the losses of the last, in a plain loop."""
    arrays, seconds = initial(), []
    for _ in range(NUM_ROUNDS):
        start = time.perf_counter()
        replies = [train(site, arrays) for site in SITES]
        arrays = {name: np.mean([reply[name] for reply, _ in replies], axis=0) for name in arrays}
        seconds.append(time.perf_counter() - start)
    return seconds, [loss for _, loss in replies]


def through_the_house() -> tuple[list[float], list[float]]:
    """Return the same through LocalGrid and `run_rounds`, with everything a run does."""
    study = Study.model_validate({"name": "b", "seed": 1, "hospitals": {"train": SITES}})
    grid = LocalGrid(app, [{"site": site} for site in SITES])
    nodes = join(grid, SITES, 60.0)
    with tempfile.TemporaryDirectory() as folder:
        marks = [time.perf_counter()]
        _, history = run_rounds(
            grid,
            nodes,
            stage="segment",
            study=study,
            agreed={},
            arrays=initial(),
            strategy=build("fedavg", {}),
            num_rounds=NUM_ROUNDS,
            weight_by="patients",
            max_patients=dict.fromkeys(SITES, 10),
            checkpoints=Checkpoints(Path(folder) / "segment"),
            on_round=lambda entry: marks.append(time.perf_counter()),
            audit=Path(folder) / "audit.jsonl",
        )
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return seconds, [site["metrics"]["loss"] for site in history[-1]["sites"].values()]


def main() -> int:
    """Print the table and say whether the claim holds."""
    plain, house = [], []
    for _ in range(REPEATS):
        seconds, losses = directly()
        plain += seconds
        seconds, house_losses = through_the_house()
        house += seconds
        np.testing.assert_allclose(house_losses, losses, rtol=1e-3)
    ratio = min(house) / min(plain)
    print(f"{len(SITES)} hospitals, {NUM_STEPS} steps of {BATCH} x {SIDE} x {SIDE} each")
    print(f"{'training called directly':28}{min(plain):8.3f} s a round")
    print(f"{'through LocalGrid':28}{min(house):8.3f} s a round")
    print(f"{'ratio':28}{ratio:8.3f}   claim: at most {BAR}")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
