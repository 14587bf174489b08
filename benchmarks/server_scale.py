"""Claims: the centre's memory is flat from 4 to 64 hospitals; averaging is 3 times Flower's speed.

Memory: three rounds of ``run_rounds`` with checkpoints, over 4, 16 and 64 hospitals of a LocalGrid,
each size in a process of its own, whose peak is read. A model has 50 MB; every hospital returns it
plus a constant (in the same process: one hospital's model is part of what is measured). The claim:
no size needs 10 % more or less than the smallest, with whole and with packed models.

Averaging: 64 replies of 50 MB are averaged by `strategies.RunningMean` and by Flower's own
``aggregate_arrayrecords``, in turns in one process, both from the received records to a record to
send, the fastest of each compared. Ours is timed with the checks of layout and numbers too, which
Flower's does not make.

Run: ``python benchmarks/server_scale.py``.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from protocol.arrays import Arrays, check_finite, check_layout, layout
from protocol.compression import DELTA, Codec, change_of, encode
from protocol.config import Study
from protocol.payload import Answer, TrainReply, TrainRequest
from protocol.records import from_array_record, to_array_record
from server.checkpoints import Checkpoints
from server.hospitals import join
from server.rounds import run_rounds
from sim.grid import LocalGrid
from strategies import RunningMean, build

SIZES, NUM_ROUNDS, NUM_REPLIES, REPEATS = (4, 16, 64), 3, 64, 3
FLAT_BAR, FASTER_BAR, MAX_BYTES = 0.10, 3.0, 2**30


def initial() -> Arrays:
    """Return a network's worth of arrays, 50 MB together: many small, a few large."""
    rng, channels = np.random.default_rng(0), (1, 32, 64, 128, 256, 576)
    shapes: dict[str, tuple[int, ...]] = {}
    for depth, (inner, outer) in enumerate(itertools.pairwise(channels)):
        for side, into in (("down", inner), ("same", outer), ("up", 2 * outer)):
            shapes[f"{side}.{depth}.weight"] = (outer, into, 3, 3)
            shapes[f"{side}.{depth}.bias"] = (outer,)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say the name."""
    answer = Answer({"site": context.node_config["site"], "version": "0"})
    return Message(answer.to_records(), reply_to=message)


@app.train("segment")
def train(message: Message, context: Context) -> Message:
    """Add a constant."""
    request = TrainRequest.from_records(message.content)
    arrays = {name: array + np.float32(0.5) for name, array in request.arrays.items()}
    if request.study.rounds.compression.up == "int8":
        arrays = {DELTA: encode(change_of(arrays, request.arrays), Codec("int8"))}
    return Message(TrainReply(arrays, 10, 2, {"loss": 0.1}).to_records(), reply_to=message)


def peak_mb() -> float:
    """Return the largest memory of this process so far, MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def rounds_over(num_sites: int, method: str) -> None:
    """Run the rounds and print this process's peak before and after, MB."""
    sites = [f"site{i:02d}" for i in range(num_sites)]
    settings = {"name": "b", "seed": 1, "hospitals": {"train": sites}}
    compression = {"rounds": {"compression": {"up": method}}}
    grid = LocalGrid(app, [{"site": site} for site in sites])
    nodes = join(grid, sites, 60.0)
    before = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        run_rounds(
            grid,
            nodes,
            stage="segment",
            study=Study.model_validate(settings | compression),
            agreed={},
            arrays=initial(),
            strategy=build("fedavg", {}),
            num_rounds=NUM_ROUNDS,
            weight_by="patients",
            max_patients=dict.fromkeys(sites, 10),
            checkpoints=Checkpoints(Path(folder)),
        )
    print(before, peak_mb())


def memory(method: str) -> bool:
    """Print the peak of each size and return whether it is flat."""
    peaks = []
    for size in SIZES:
        command = [sys.executable, __file__, "--sites", str(size), "--method", method]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak = map(float, told.split())
        peaks.append(peak)
        print(
            f"{method:5} {size:3} hospitals  peak {peak:6.0f} MB, {peak - before:5.0f} MB of it in "
            f"the rounds  {peak / peaks[0] - 1:+.1%}",
            flush=True,
        )
    return all(abs(peak / peaks[0] - 1) <= FLAT_BAR for peak in peaks)


def ours(replies: list[RecordDict], expected: Any) -> ArrayRecord:
    """Average by the running mean; with ``expected`` after the checks of a reply."""
    mean = RunningMean()
    for reply in replies:
        arrays = from_array_record(reply["arrays"], "A reply", MAX_BYTES)
        if expected is not None:
            check_layout(arrays, expected, "A reply")
            check_finite(arrays, "A reply")
        mean.add(arrays, float(reply["metrics"]["num"]))
    return to_array_record(mean.take())


def fastest(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the fewest seconds each function took, called in turns."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPEATS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in taken.items()}


def averaging() -> bool:
    """Print how long both take for the same replies and return whether ours is fast enough."""
    model = initial()
    # Four models in turn: sixty-four would be 3 GB, which Flower's function needs all at once.
    records = [
        to_array_record({n: a + np.float32(number) for n, a in model.items()})
        for number in range(4)
    ]
    replies = [
        RecordDict({"arrays": records[number % 4], "metrics": MetricRecord({"num": 10 + number})})
        for number in range(NUM_REPLIES)
    ]
    found = from_array_record(ours(replies, None), "ours", MAX_BYTES)
    flowers = aggregate_arrayrecords(replies, "num")
    for name, array in found.items():
        np.testing.assert_allclose(array, flowers[name].numpy(), rtol=1e-4, atol=1e-5)
    seconds = fastest(
        {
            "Flower's aggregate_arrayrecords": lambda: aggregate_arrayrecords(replies, "num"),
            "ours": lambda: ours(replies, None),
            "ours, with its checks": lambda: ours(replies, layout(model)),
        }
    )
    slowest = seconds["Flower's aggregate_arrayrecords"]
    for name, taken in seconds.items():
        print(f"{name:32} {taken:6.2f} s for {NUM_REPLIES} replies  {slowest / taken:5.1f} times")
    return slowest / seconds["ours"] >= FASTER_BAR


def main() -> int:
    """Print both tables and whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, help="measure this size in this process")
    parser.add_argument("--method", choices=("none", "int8"), default="none")
    options = parser.parse_args()
    if options.sites is not None:
        rounds_over(options.sites, options.method)
        return 0
    size = sum(array.nbytes for array in initial().values()) / 2**20
    print(f"a model of {size:.0f} MB in {len(initial())} arrays")
    flat = [memory(method) for method in ("none", "int8")]
    fast = averaging()
    print(
        f"flat within {FLAT_BAR:.0%}{'' if all(flat) else '  MISSED'}; at least {FASTER_BAR:g} "
        f"times as fast{'' if fast else '  MISSED'}"
    )
    return 0 if all(flat) and fast else 1


if __name__ == "__main__":
    sys.exit(main())
