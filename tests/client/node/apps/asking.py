"""A server app that is a pipe: it asks what a test writes into ``asks/``, and notes each reply.

An ask is one JSON file ``{"node": id, "type": ..., "document": {...}, "size": bytes, "ttl": s}``;
the reply goes to ``replies/`` under the same name.
"""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

server = ServerApp()


def content_of(ask: dict) -> RecordDict:
    """Return the records that an ask describes."""
    if "text" in ask:
        return RecordDict({"document": ConfigRecord({"json": ask["text"]})})
    records = RecordDict({"document": ConfigRecord({"json": json.dumps(ask["document"])})})
    if ask.get("size"):
        ones = np.ones(ask["size"] // 4, np.float32)
        records["arrays"] = ArrayRecord({"w": Array(ones)})
    return records


def told(reply: Message) -> dict:
    """Return what a test may see of a reply."""
    if reply.has_error():
        return {"code": reply.error.code, "reason": reply.error.reason}
    arrays = reply.content.array_records
    return {
        "document": json.loads(str(reply.content["document"]["json"])),
        "id": reply.content.object_id,
        "sum": float(arrays["arrays"]["w"].numpy().sum()) if arrays else None,
    }


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask until a file ``stop`` appears."""
    run = Path(str(context.run_config["run-dir"]))
    pending: dict[str, str] = {}
    while not (run / "stop").exists():
        for path in sorted((run / "asks").glob("*.json")):
            ask = json.loads(path.read_text())
            message = Message(content_of(ask), ask["node"], ask["type"], ttl=ask["ttl"])
            (message_id,) = grid.push_messages([message])
            pending[str(message_id)] = path.name
            path.unlink()
        for message_id, name in list(pending.items()):
            for reply in grid.pull_messages([message_id]):
                draft = run / "replies" / f"{name}.new"
                draft.write_text(json.dumps(told(reply)))
                draft.rename(run / "replies" / name)
                del pending[message_id]
        time.sleep(0.05)
