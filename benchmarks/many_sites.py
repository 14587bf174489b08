"""Three rounds of 200 trivial hospitals with 1 MB models: ours in one process, Flower's on Ray.

Both sides do the same: every hospital adds a constant to ten float32 arrays, the centre takes the
weighted mean. Ours also checks every reply and makes every hospital say hello first. Imports are
left out on both sides, starting Ray is counted (it is part of every run).

Run: ``python benchmarks/many_sites.py``. The claim, of one run on a quiet machine: the whole run
at least 10 times faster, a steady round (the later ones) at least 6 times.
"""

import json
import os
import signal
import subprocess
import sys
import time
from statistics import median

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}

import itertools

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from protocol.config import Study
from protocol.payload import Answer, TrainReply, TrainRequest
from server.hospitals import join
from server.rounds import run_rounds
from sim.grid import LocalGrid
from strategies import build

NUM_SITES, NUM_ROUNDS, NUM_ARRAYS, ARRAY_SIZE = 200, 3, 10, 26_214
WHOLE_BAR, STEADY_BAR = 10.0, 6.0


def initial() -> dict[str, np.ndarray]:
    """Ten arrays, 1 MB together."""
    rng = np.random.default_rng(0)
    return {
        f"layer{i}.weight": rng.standard_normal(ARRAY_SIZE, dtype=np.float32)
        for i in range(NUM_ARRAYS)
    }


ours = ClientApp()


@ours.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say the name."""
    answer = Answer({"site": context.node_config["site"], "version": "0"})
    return Message(answer.to_records(), reply_to=message)


@ours.train("segment")
def train_ours(message: Message, context: Context) -> Message:
    """Add a constant."""
    request = TrainRequest.from_records(message.content)
    arrays = {name: array + np.float32(0.5) for name, array in request.arrays.items()}
    return Message(TrainReply(arrays, 10, 2, {"loss": 0.1}).to_records(), reply_to=message)


def run_ours() -> dict[str, object]:
    """Time the whole run and each round on LocalGrid."""
    sites = [f"site{i:03d}" for i in range(NUM_SITES)]
    study = Study.model_validate({"name": "bench", "seed": 1, "hospitals": {"train": sites}})
    start = time.perf_counter()
    grid = LocalGrid(ours, [{"site": site} for site in sites])
    nodes = join(grid, sites, join_s=60)
    marks = [time.perf_counter()]
    arrays, _ = run_rounds(
        grid,
        nodes,
        stage="segment",
        study=study,
        agreed={},
        arrays=initial(),
        strategy=build("fedavg", {}),
        num_rounds=NUM_ROUNDS,
        weight_by="patients",
        max_patients=dict.fromkeys(sites, 10),
        on_round=lambda entry: marks.append(time.perf_counter()),
    )
    return summary(start, marks, float(arrays["layer0.weight"].sum(dtype=np.float64)))


theirs = ClientApp()


@theirs.train()
def train_theirs(message: Message, context: Context) -> Message:
    """Add a constant."""
    arrays = ArrayRecord(
        {
            name: Array(array.numpy() + np.float32(0.5))
            for name, array in message.content["arrays"].items()
        }
    )
    metrics = MetricRecord({"num-examples": 10, "loss": 0.1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def run_theirs() -> dict[str, object]:
    """Time the whole run and each round on Flower's Ray engine with Flower's FedAvg."""
    from flwr.simulation import run_simulation

    marks: list[float] = []
    checksums: list[float] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        def mark(server_round: int, arrays: ArrayRecord) -> None:
            marks.append(time.perf_counter())

        result = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=NUM_SITES, min_available_nodes=NUM_SITES
        ).start(
            grid,
            ArrayRecord({name: Array(array) for name, array in initial().items()}),
            num_rounds=NUM_ROUNDS,
            train_config=ConfigRecord({"lr": 0.1}),
            evaluate_fn=mark,
        )
        checksums.append(float(result.arrays["layer0.weight"].numpy().sum(dtype=np.float64)))

    start = time.perf_counter()
    run_simulation(
        server,
        theirs,
        num_supernodes=NUM_SITES,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
    )
    return summary(start, marks, checksums[0])


def summary(start: float, marks: list[float], checksum: float) -> dict[str, object]:
    """Seconds of the whole run and of each round; ``marks[0]`` is the start of round 1."""
    rounds = [after - before for before, after in itertools.pairwise(marks)]
    return {"whole_s": time.perf_counter() - start, "rounds_s": rounds, "checksum": checksum}


def run_theirs_apart() -> dict[str, object]:
    """Run Flower's side in its own process group, and leave nothing of it behind."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--ray"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=300)
    finally:
        # Ray's daemons share the group of the process that started them.
        os.killpg(process.pid, signal.SIGKILL)
    return json.loads(out.splitlines()[-1])


def main() -> int:
    """Print the table and say whether the claim holds."""
    mine = run_ours()
    flower = run_theirs_apart()
    if abs(mine["checksum"] - flower["checksum"]) > 1e-5 * abs(flower["checksum"]):
        raise SystemExit(f"The two sides differ: {mine['checksum']} and {flower['checksum']}.")
    steady = [median(side["rounds_s"][1:]) for side in (mine, flower)]
    whole_ratio = flower["whole_s"] / mine["whole_s"]
    steady_ratio = steady[1] / steady[0]
    print(f"{NUM_ROUNDS} rounds, {NUM_SITES} hospitals, 1 MB models, {os.cpu_count()} cores")
    print(f"{'':14}{'Concors':>10}{'Flower/Ray':>12}{'ratio':>8}{'claim':>8}")
    print(
        f"{'whole run, s':14}{mine['whole_s']:10.2f}{flower['whole_s']:12.2f}"
        f"{whole_ratio:7.1f}x{WHOLE_BAR:7.0f}x"
    )
    print(
        f"{'steady round, s':14}{steady[0]:9.3f}{steady[1]:12.3f}"
        f"{steady_ratio:7.1f}x{STEADY_BAR:7.0f}x"
    )
    print("rounds, s: " + ", ".join(f"{s:.3f}" for s in mine["rounds_s"]), end=" | ")
    print(", ".join(f"{s:.3f}" for s in flower["rounds_s"]))
    return 0 if whole_ratio >= WHOLE_BAR and steady_ratio >= STEADY_BAR else 1


if __name__ == "__main__":
    if "--ray" in sys.argv:
        print(json.dumps(run_theirs()))
    else:
        sys.exit(main())
