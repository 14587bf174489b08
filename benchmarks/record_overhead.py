"""What writing everything down costs: processor time of a round's record, beside one training step.

A round of one hospital is recorded at both ends as in a study (`server.recording`,
`client.recording`): hashes of what is sent and of what comes, two lines of the run's log, one of
the hospital's, the heads in the reply. The model is a U-Net of MONAI's size (1.6 million weights);
a question carries none. One step of its training on sixteen slices is the measure of what a round
costs at the least. Processor time, the least of several, as others use the machine too.

Run: ``python benchmarks/record_overhead.py``. The claim: less than a tenth of one step.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from monai.networks.nets import UNet
from torch.nn.functional import cross_entropy

from client.recording import record_answer
from protocol.config import Study
from protocol.payload import Answer, Question, TrainReply, TrainRequest
from server.recording import RecordedGrid, begin_log
from sim.grid import LocalGrid

REPEATS, ROUNDS, BATCH, SIDE, BAR = 5, 10, 16, 128, 0.1
STUDY = Study.model_validate({"name": "s", "seed": 1, "hospitals": {"train": ["alder"]}})


def network() -> torch.nn.Module:
    """Return the U-Net of the speed benchmark."""
    torch.manual_seed(0)
    norm = ("group", {"num_groups": 4})
    model = UNet(2, 1, 4, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm=norm)
    return model.to(memory_format=torch.channels_last)


def least(run: Callable[[], None], times: int) -> float:
    """Return the least processor time of one of ``times`` repetitions, seconds."""
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(times):
            run()
        found.append((time.process_time() - start) / times)
    return min(found)


def step(model: torch.nn.Module) -> Callable[[], None]:
    """Return one training step."""
    images = torch.randn(BATCH, 1, SIDE, SIDE)
    labels = torch.randint(0, 4, (BATCH, SIDE, SIDE))

    def run() -> None:
        model.zero_grad()
        cross_entropy(model(images), labels).backward()

    return run


def exchange(folder: Path, request: RecordDict, reply: RecordDict, recorded: bool) -> float:
    """Return the processor time of one request and its reply, seconds."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        content = RecordDict(dict(reply))
        if recorded:
            record_answer(folder, message, context, content, site="alder", data="0" * 64)
        return Message(content, reply_to=message)

    app.train("segment")(answer)
    inner = LocalGrid(app, [{"site": str(folder)}])
    grid: LocalGrid | RecordedGrid = inner
    if recorded:
        grid = RecordedGrid(inner, {"alder": 2}, begin_log(folder, STUDY, {"alder": 2}))

    def run() -> None:
        ids = list(grid.push_messages([Message(request, 2, "train.segment")]))
        assert all(not message.has_error() for message in grid.pull_messages(ids))

    return least(run, ROUNDS)


def main() -> None:
    """Measure, print, and fail where the claim does not hold."""
    torch.set_num_threads(1)
    model = network()
    arrays = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    one_step = least(step(model), 1)
    print(f"one training step: {one_step * 1e3:.1f} ms of processor time")
    pairs = {
        "a round with a model": (
            TrainRequest(STUDY, "segment", 1, {}, arrays).to_records(),
            TrainReply(arrays, 10, 0).to_records(),
        ),
        "a question": (
            Question(STUDY, "survey").to_records(),
            Answer({"patients": 10}).to_records(),
        ),
    }
    worst = 0.0
    for name, (request, reply) in pairs.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".concors").mkdir()
            bare = exchange(Path(folder), request, reply, recorded=False)
            whole = exchange(Path(folder), request, reply, recorded=True)
        cost = whole - bare
        worst = max(worst, cost / one_step)
        print(f"{name}: {cost * 1e3:.2f} ms at both ends, {cost / one_step:.3f} of a step")
    assert worst < BAR, f"the record costs {worst:.2f} of a step, the claim is {BAR}"


if __name__ == "__main__":
    main()
