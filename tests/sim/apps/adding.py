"""Two small real apps: every client adds one to what it is sent, and the server averages.

They read their files the way the project's own apps do. A hospital directory with a file
``refuse`` makes its client answer with an error, once there is the file that is named in it; one
with a file ``wait`` makes it sleep for the number of seconds that stands in it. Each app writes the
number of its process into its own directory.
"""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from protocol.errors import QuorumError

NUM_ROUNDS = 2

client = ClientApp()
server = ServerApp()


def site_of(context: Context) -> Path:
    """Find the hospital directory: from the node's configuration, or by number."""
    if "site" in context.node_config:
        return Path(str(context.node_config["site"]))
    sites = os.environ["CONCORS_SITES"].split(os.pathsep)
    return Path(sites[int(context.node_config["partition-id"])])


@client.train()
def train(message: Message, context: Context) -> Message:
    """Return the arrays plus one."""
    site = site_of(context)
    (site / "pid").write_text(str(os.getpid()))
    if (site / "refuse").exists():
        other, deadline = Path((site / "refuse").read_text()), time.monotonic() + 60
        while not other.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return Message(Error(1, "E200 the hospital cannot train"), reply_to=message)
    if (site / "wait").exists():
        (site / "waiting").touch()
        time.sleep(float((site / "wait").read_text()))
    arrays = message.content.array_records["arrays"]
    added = ArrayRecord({k: Array(v.numpy() + np.float32(1)) for k, v in arrays.items()})
    return Message(RecordDict({"arrays": added}), reply_to=message)


def one_round(grid: Grid, arrays: ArrayRecord, nodes: list[int]) -> list[Message]:
    """Send to every node and wait for every reply, or for the first refusal."""
    content = RecordDict({"arrays": arrays})
    messages = [Message(content, node, "train") for node in nodes]
    pending = set(grid.push_messages(messages))
    replies: list[Message] = []
    deadline = time.monotonic() + 60
    while pending and time.monotonic() < deadline:
        for reply in grid.pull_messages(sorted(pending)):
            pending.discard(reply.metadata.reply_to_message_id)
            if reply.has_error():
                reason = reply.error.reason
                raise QuorumError(f"One hospital refused the round ({reason}); ask it why.")
            replies.append(reply)
        time.sleep(0.1)
    return replies


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Two rounds from zero."""
    study = Path(str(context.run_config.get("study-file") or os.environ["CONCORS_STUDY"]))
    run = Path(str(context.run_config.get("run-dir") or os.environ["CONCORS_RUN"]))
    (run / "pid").write_text(str(os.getpid()))
    while len(nodes := sorted(grid.get_node_ids())) < int(study.read_text()):
        time.sleep(0.2)
    arrays = ArrayRecord({"w": Array(np.arange(3, dtype=np.float32))})
    replies: list[Message] = []
    for _ in range(NUM_ROUNDS):
        replies = one_round(grid, arrays, nodes)
        stack = [reply.content.array_records["arrays"]["w"].numpy() for reply in replies]
        arrays = ArrayRecord({"w": Array(np.mean(stack, axis=0, dtype=np.float32))})
