"""What a round costs besides its training, when server and hospitals are real processes over TLS.

Four SuperNodes on loopback, a model of 5 MB, torch and MONAI loaded at the hospitals. Ours: the
commands of a consortium, hospitals of tables whose training takes a moment (it is counted as
overhead too). Beside it, in the same run, Flower as it comes: ``flower-superlink`` and
``flower-supernode`` with TLS and node keys, and an app that imports the same libraries and sends
the model back.

    python benchmarks/deployed_overhead.py [--rounds 8] [--repeats 2]
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import yaml
from consortium import consortium, finished, wait_for, write_table_hospital

from deployment.certificates import new_key
from deployment.control import Control
from deployment.flower import HOST, KEPT_MEMORY, program, variables
from deployment.node_keys import public_pem, write_node_key
from deployment.processes import Processes, free_ports, processes
from server.consortium import Consortium, Settings
from server.founding import create

NAMES = ("alder", "birch", "cedar", "dogwood")
WIDTH = 1120
PATIENCE_S = 900.0
BAR_S, BAR_RATIO = 2.5, 3.0
STOCK_PROJECT = """
[project]
name = "stock"
version = "0.1.0"
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "stock:server"
clientapp = "stock:client"
[tool.flwr.app.config]
num-rounds = 3
times-file = ""
"""
STOCK_APP = '''
"""Four clients that send a model of 5 MB back, and Flower's own FedAvg."""

import json
import time

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    import monai
    import torch

    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
    return Message(content, reply_to=message)


class Timed(FedAvg):
    times = []

    def configure_train(self, server_round, arrays, config, grid):
        self.times.append(time.monotonic())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        self.times.append(time.monotonic())
        return found


@server.main()
def main(grid, context):
    arrays = ArrayRecord([np.zeros((1120, 1120), np.float32)])
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
    rounds = int(context.run_config["num-rounds"])
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds)
    with open(context.run_config["times-file"], "w") as file:
        json.dump(strategy.times, file)
'''


def ours(root: Path, num_rounds: int) -> list[float]:
    """Return the seconds of each round but the first of a deployed consortium."""
    sites = [write_table_hospital(root / name, seed) for seed, name in enumerate(NAMES)]
    study = root / "study.yaml"
    content = {
        "name": "overhead",
        "seed": 1,
        "hospitals": {"train": list(NAMES)},
        "stages": ["survey", "prognosis"],
        "rounds": {"deadline_s": 300.0},
        "prognosis": {
            "network": {"name": "tabular", "options": {"hidden": [WIDTH, WIDTH]}},
            "covariates": ["age", "fibrosis"],
            "rounds": num_rounds,
            "training": {"batch_size": 64},
        },
    }
    study.write_text(yaml.safe_dump({"study": content}))
    with consortium(root / "run", sites, study) as (centre, _, _):
        command = [program("concors-server"), "run", str(centre), str(study), "--detach"]
        subprocess.run(command, check=True, capture_output=True)
        run = centre / "runs" / "overhead-1"
        wait_for(lambda: finished(run) is not None, PATIENCE_S, "the end of the run")
        state = finished(run)
        if state is None or state.state != "finished":
            raise SystemExit(f"The run did not finish: {state}")
        newest = max(run.glob("prognosis/round-*.json"))
        return [entry["seconds"] for entry in json.loads(newest.read_text())["history"]][1:]


def stock(root: Path, num_rounds: int) -> list[float]:
    """Return the seconds of each round but the first of Flower as it comes."""
    app = root / "app"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text(STOCK_PROJECT)
    (app / "stock.py").write_text(STOCK_APP)
    own, *ports = free_ports(1 + len(NAMES))
    address = f"{HOST}:{own}"
    settings = Settings(name="stock", address=address, listen=HOST)
    consortium = create(root / "keys", settings, now=datetime.now(UTC))
    times = root / "times.json"
    with processes(root / "logs") as running:
        _start_stock_superlink(running, root, consortium)
        with Control(address, consortium.authority, running.check) as control:
            control.wait_until_up(PATIENCE_S)
            for name, port in zip(NAMES, ports, strict=True):
                key = new_key()
                control.register(public_pem(key), name)
                command = [program("flower-supernode"), "--superlink", address]
                command += ["--root-certificates", str(consortium.authority)]
                file = write_node_key(root / f"{name}.key", key)
                command += ["--auth-supernode-private-key", str(file)]
                command += ["--host", HOST, "--port", str(port)]
                running.start(name, command, variables=_plain(root / name), cwd=root)
            control.wait_for_nodes(len(NAMES), PATIENCE_S)
            run = control.submit(app, {"num-rounds": num_rounds, "times-file": str(times)})
            control.wait_for_run(run, PATIENCE_S, root / "stock.log")
    moments = json.loads(times.read_text())
    return [b - a for a, b in zip(moments[::2], moments[1::2], strict=True)][1:]


def _plain(home: Path) -> dict[str, str]:
    """Return the environment of a program of Flower's, with what we set for ours left out."""
    without = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL", *KEPT_MEMORY}
    return {name: value for name, value in variables(home).items() if name not in without}


def _start_stock_superlink(running: Processes, root: Path, consortium: Consortium) -> None:
    host, port = consortium.settings.address.split(":")
    command = [program("flower-superlink"), "--host", host, "--port", port]
    command += ["--ssl-ca-certfile", str(consortium.authority)]
    command += ["--ssl-certfile", str(consortium.certificate)]
    command += ["--ssl-keyfile", str(consortium.certificate_key), "--enable-supernode-auth"]
    # With it Flower would download an environment of its own for the app.
    command += ["--disable-runtime-dependency-installation"]
    running.start("server", command, variables=_plain(root / "server"), cwd=root)


def main() -> None:
    """Measure both, one after the other, and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    for number in range(given.repeats):
        with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
            own = ours(Path(folder) / "ours", given.rounds)
            flower = stock(Path(folder) / "stock", max(4, given.rounds // 2))
        a, b = statistics.median(own), statistics.median(flower)
        print(
            f"run {number + 1}: ours {a:.2f} s a round ({min(own):.2f}-{max(own):.2f}), Flower "
            f"{b:.2f} s ({min(flower):.2f}-{max(flower):.2f}), {b / a:.1f}x less "
            f"(bars: {BAR_S} s, {BAR_RATIO:g}x)"
        )


if __name__ == "__main__":
    main()
