"""A study over bad lines: slow and far, lossy, and one that is cut while a model goes up.

Five hosts, each a network namespace of its own: the centre and four hospitals. One line is good,
one has 1 Mbit/s and 200 ms each way, one loses a packet in twenty, and one is cut for a minute in
the middle of an upload. The study must end, no round may be later than its deadline and five
seconds, and what is sent again must be a tenth of what the good line sent at most. Needs root and
``/dev/net/tun``; where the kernel has ``tc netem``, lines made of it would do as well.

    sudo python benchmarks/networks.py [--rounds 4] [--deadline 150] [--width 300]
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from consortium import consortium, finished, wait_for, write_table_hospital
from links import Line, Link, hosts, in_namespace

from deployment.flower import program

NAMES = ("alder", "birch", "cedar", "dogwood")
LINES = {
    "alder": Line(),
    "birch": Line(rate_mbit=1.0, delay_ms=200.0),
    "cedar": Line(loss=0.05),
    "dogwood": Line(rate_mbit=2.0),
}
GOOD, CUT, CUT_S, LATE_S, RESENT = "alder", "dogwood", 60.0, 5.0, 0.10
ADDRESS, PORT = "10.77.0.1", 8443
PATIENCE_S = 1800.0


def write_study(path: Path, num_rounds: int, deadline_s: float, width: int) -> Path:
    """Write a study of tables with a network of about 4 * width^2 bytes."""
    study = {
        "name": "networks",
        "seed": 1,
        "hospitals": {"train": list(NAMES)},
        "stages": ["survey", "prognosis"],
        "rounds": {"deadline_s": deadline_s, "quorum": 0.5, "join_s": 300.0, "max_missed": 10},
        "prognosis": {
            "network": {"name": "tabular", "options": {"hidden": [width, width]}},
            "covariates": ["age", "fibrosis"],
            "rounds": num_rounds,
            "training": {"batch_size": 32},
        },
    }
    path.write_text(yaml.safe_dump({"study": study}))
    return path


def cut_once(link: Link, run: Path, model_bytes: int, said: list[str]) -> None:
    """Cut a line for a minute when a third of a model has gone up in some round but the first."""
    while not list(run.glob("prognosis/round-*.json")):
        time.sleep(0.2)
    before = link.bytes_up
    while link.bytes_up < before + model_bytes // 3:
        time.sleep(0.05)
    link.cut.set()
    time.sleep(CUT_S)
    link.cut.clear()
    said.append(f"{CUT} was cut for {CUT_S:g} s with {link.bytes_up - before} bytes of a model up")


def history(run: Path) -> list[dict[str, Any]]:
    """Return the entries of all rounds."""
    newest = max(run.glob("prognosis/round-*.json"))
    entries: list[dict[str, Any]] = json.loads(newest.read_text())["history"]
    return entries


def measure(root: Path, links: Sequence[Link], given: argparse.Namespace) -> bool:
    """Run the study and print what was late and what was sent twice; True if all bars are met."""
    sites = [write_table_hospital(root / name, seed) for seed, name in enumerate(NAMES)]
    study = write_study(root / "study.yaml", given.rounds, given.deadline, given.width)
    said: list[str] = []
    with consortium(
        root / "run",
        sites,
        study,
        address=f"{ADDRESS}:{PORT}",
        on_centre=lambda command: in_namespace("cc-centre", command),
        on_host=lambda k, command: in_namespace(f"cc-h{k}", command),
    ) as (centre, _, _):
        command = [program("concors-server"), "run", str(centre), str(study), "--detach"]
        subprocess.run(command, check=True, capture_output=True)
        run = centre / "runs" / "networks-1"
        model = 4 * given.width**2
        cutting = threading.Thread(
            target=cut_once, args=(links[NAMES.index(CUT)], run, model, said), daemon=True
        )
        cutting.start()
        wait_for(lambda: finished(run) is not None, PATIENCE_S, "the end of the run")
        state = finished(run)
    print(f"study: {state.state if state else '?'} {state.sentence if state else ''}")
    print("\n".join(said) or "nothing was cut")
    entries = history(run)
    for entry in entries:
        out = ", ".join(f"{s} {why['code']}" for s, why in entry["excluded"].items())
        print(f"round {entry['round']}: {entry['seconds']:.1f} s, without {out or 'nobody'}")
    good = state is not None and state.state == "finished" and bool(said)
    latest = max(entry["seconds"] for entry in entries)
    print(f"longest round {latest:.1f} s (deadline {given.deadline:g} s + {LATE_S:g} s)")
    good = good and latest <= given.deadline + LATE_S
    # What had to be sent is what the good line sent, round for round.
    needed = links[NAMES.index(GOOD)].bytes_up / sum(GOOD in entry["sites"] for entry in entries)
    for name, link in zip(NAMES, links, strict=True):
        rounds_in = sum(name in entry["sites"] for entry in entries)
        again = link.bytes_up / (rounds_in * needed) - 1 if rounds_in else float("nan")
        print(f"{name}: {link.bytes_up / 1e6:.2f} MB up in {rounds_in} rounds, {again:+.1%} again")
        good = good and again <= RESENT
    return good


def main() -> None:
    """Make the hosts, run, and say whether it ended in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--deadline", type=float, default=150.0)
    parser.add_argument("--width", type=int, default=1120)
    given = parser.parse_args()
    lines = [LINES[name] for name in NAMES]
    with tempfile.TemporaryDirectory(prefix="networks-") as folder, hosts(lines, ADDRESS) as links:
        if not measure(Path(folder), links, given):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
