"""A worker whose app does as it is told, good or bad: ``troublesome.py SOCKET SITE``."""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.boundary import guarded
from client.node.worker import serve

app = ClientApp()


def kill(how: signal.Signals, site: Path, times: int) -> None:
    """End this process by a signal, but only so many times."""
    marks = list(site.glob("killed-*"))
    if len(marks) < times:
        (site / f"killed-{len(marks)}").touch()
        os.kill(os.getpid(), how)
        time.sleep(60)


def allocate() -> None:
    """Ask for more memory than the process may have, and keep what it got."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 256 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kept = []
    while True:
        kept.append(bytearray(16 * 2**20))


@app.train()
@guarded
def train(message: Message, context: Context) -> Message:
    """Do what the request says, and tell by whom it was done and how often it was asked."""
    site = Path(str(context.node_config["site"]))
    asked = json.loads(str(message.content["document"]["json"]))
    calls = site / "calls"
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    match asked["do"]:
        case "raise":
            raise ValueError(f"no patient DOE^JANE in {site}")
        case "sleep":
            (site / "sleeping").touch()
            time.sleep(asked["s"])
        case "term":
            kill(signal.SIGTERM, site, asked["times"])
        case "kill":
            kill(signal.SIGKILL, site, asked["times"])
        case "allocate":
            allocate()
    answer = {"pid": os.getpid(), "site": site.name, "calls": len(calls.read_text())}
    records = RecordDict({"document": ConfigRecord({"json": json.dumps(answer)})})
    if "arrays" in message.content:
        records["arrays"] = message.content["arrays"]
    return Message(records, reply_to=message)


@app.query("outside")
def outside(message: Message, context: Context) -> Message:
    """Raise where nothing of ours guards."""
    raise ValueError("no patient DOE^JANE here")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), app)
