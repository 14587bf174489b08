"""Kill what runs a study, again and again, and see whether its result is the same to the byte.

Four hospitals and a server, real processes over TLS. A kill is SIGKILL of one of six: the
SuperLink, the server app, the server's supervisor, and of a hospital its SuperNode, its worker
(which does the training) and its supervisor (which is the gatekeeper). When: the moments of a round
are cut into equal parts, one for each kill, and a seed draws where in its part each kill falls.
Supervisors that are killed are started again as systemd would; nothing else is done by hand.

    python benchmarks/chaos.py [--kills 40] [--seed 0] [--out chaos.json]
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from consortium import (
    Unit,
    consortium,
    finished,
    processes_of,
    wait_for,
    write_table_hospital,
)

from deployment.flower import program
from sim.engines.local import run_local

NAMES = ("alder", "birch", "cedar", "dogwood")
KILLS_A_RUN, ROUNDS_BETWEEN = 4, 2
PATIENCE_S = 600.0
# By name: whose process it is, and words of its command line (none: the supervisor itself).
VICTIMS = {
    "SuperLink": ("server", "server.superlink"),
    "server app": ("server", "flwr-serverapp"),
    "server's supervisor": ("server", ""),
    "SuperNode": ("hospital", "client.node.supernode"),
    "worker": ("hospital", "client.node.worker"),
    "hospital's supervisor": ("hospital", ""),
}


@dataclass(frozen=True)
class Kill:
    """One kill: whom, in which round, and how far into it (1 is a whole undisturbed round)."""

    victim: str
    hospital: int
    after_round: int
    moment: float


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    kills: list[dict[str, Any]]
    state: str
    attempts: int
    seconds: float
    identical: bool
    excluded: list[str]


def plan(num_kills: int, seed: int) -> list[list[Kill]]:
    """Draw the kills, a few for each run."""
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    moments = [(k + rng.random()) / num_kills for k in range(num_kills)]
    victims = [list(VICTIMS)[k % len(VICTIMS)] for k in range(num_kills)]
    rng.shuffle(moments)
    runs = []
    for first in range(0, num_kills, KILLS_A_RUN):
        numbers = range(first, min(first + KILLS_A_RUN, num_kills))
        runs.append(
            [
                Kill(victims[n], rng.randrange(len(NAMES)), 1 + ROUNDS_BETWEEN * k, moments[n])
                for k, n in enumerate(numbers)
            ]
        )
    return runs


def write_study(path: Path, num_rounds: int, names: Sequence[str]) -> Path:
    """Write a study of tables whose round takes about a second of training."""
    study = {
        "name": "chaos",
        "seed": 5,
        "hospitals": {"train": list(names)},
        "stages": ["survey", "prognosis"],
        "rounds": {"deadline_s": 300.0, "join_s": 300.0},
        "prognosis": {
            "network": {"name": "tabular"},
            "covariates": ["age", "fibrosis"],
            "rounds": num_rounds,
            "training": {"epochs": 20, "batch_size": 8},
        },
    }
    path.write_text(yaml.safe_dump({"study": study}))
    return path


def fingerprint(run: Path) -> str:
    """Return the hash of the final weights."""
    return hashlib.sha256((run / "prognosis" / "final.safetensors").read_bytes()).hexdigest()


def rounds_done(run: Path) -> int:
    """Return how many rounds have their checkpoint."""
    found = [int(p.stem.split("-")[1]) for p in run.glob("prognosis/round-*.json")]
    return max(found, default=0)


def strike(kill: Kill, server: Unit, hospitals: Sequence[Unit]) -> bool:
    """Kill one process; False when it was not there at that moment."""
    side, words = VICTIMS[kill.victim]
    unit = server if side == "server" else hospitals[kill.hospital]
    if not words:
        unit.process.send_signal(signal.SIGKILL)
        return True
    victims = processes_of(unit, words)
    for process in victims:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
    return bool(victims)


def one_run(
    root: Path,
    kills: Sequence[Kill],
    num_rounds: int,
    round_s: float,
    names: Sequence[str] = NAMES,
) -> Outcome:
    """Run the study once, strike as planned, and compare with nobody struck."""
    sites = [write_table_hospital(root / name, seed) for seed, name in enumerate(names)]
    study = write_study(root / "study.yaml", num_rounds, names)
    start, struck = time.monotonic(), []
    with consortium(root / "run", sites, study, settings={"resumes_per_hour": 1000}) as (
        centre,
        server,
        hospitals,
    ):
        command = [program("concors-server"), "run", str(centre), str(study), "--detach"]
        subprocess.run(command, check=True, capture_output=True)
        run = centre / "runs" / "chaos-1"
        for kill in kills:
            wait_for(
                lambda kill=kill: rounds_done(run) >= kill.after_round or finished(run) is not None,
                PATIENCE_S,
                f"round {kill.after_round}",
            )
            time.sleep(kill.moment * round_s)
            at = rounds_done(run) + 1
            hit = strike(kill, server, hospitals)
            struck.append({**asdict(kill), "hit": hit, "in_round": at})
            print(f"  {kill.victim}, {kill.moment:.2f} of round {at}: {'killed' if hit else '-'}")
        wait_for(lambda: finished(run) is not None, PATIENCE_S, "the end of the run")
        state = finished(run)
        seconds = time.monotonic() - start
        assert state is not None
        same = state.state == "finished" and fingerprint(run) == undisturbed(
            root, num_rounds, names
        )
        excluded = sorted({site for entry in history(run) for site in entry["excluded"]})
        return Outcome(struck, state.state, state.attempts, seconds, same, excluded)


def history(run: Path) -> list[dict[str, Any]]:
    """Return what the newest checkpoint says of every round."""
    newest = max(run.glob("prognosis/round-*.json"))
    entries: list[dict[str, Any]] = json.loads(newest.read_text())["history"]
    return entries


def undisturbed(root: Path, num_rounds: int, names: Sequence[str]) -> str:
    """Return the hash of the weights of the same study in one process, with nothing in between."""
    folder = root / "undisturbed"
    sites = [write_table_hospital(folder / name, seed) for seed, name in enumerate(names)]
    run_local(write_study(folder / "study.yaml", num_rounds, names), folder / "run", sites)
    return fingerprint(folder / "run")


def chaos(root: Path, num_kills: int, seed: int) -> list[Outcome]:
    """Do every run of the plan; the first, with nobody killed, says how long a round takes."""
    num_rounds = 1 + ROUNDS_BETWEEN * KILLS_A_RUN
    calm = one_run(root / "calm", [], num_rounds, 1.0)
    round_s = calm_round_s(root / "calm")
    print(f"undisturbed: {calm.state}, identical {calm.identical}, a round takes {round_s:.1f} s")
    outcomes = [calm]
    for number, kills in enumerate(plan(num_kills, seed), start=1):
        folder = root / f"run-{number}"
        outcomes.append(one_run(folder, kills, num_rounds, round_s))
        done = outcomes[-1]
        print(
            f"run {number}: {done.state} after {done.attempts} attempts and {done.seconds:.0f} s, "
            f"identical: {done.identical}, excluded: {', '.join(done.excluded) or 'nobody'}"
        )
        if done.identical:
            shutil.rmtree(folder)
    return outcomes


def calm_round_s(root: Path) -> float:
    """Return the median time between two checkpoints of the undisturbed run."""
    run = root / "run" / "centre" / "runs" / "chaos-1"
    return statistics.median(entry["seconds"] for entry in history(run))


def main() -> None:
    """Strike, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcomes = chaos(Path(folder), given.kills, given.seed)
        hits = [kill for outcome in outcomes for kill in outcome.kills if kill["hit"]]
        ended = sum(outcome.state == "finished" for outcome in outcomes)
        same = sum(outcome.identical for outcome in outcomes)
        print(f"{len(hits)} kills of {given.kills} moments in {len(outcomes) - 1} runs:")
        for victim in VICTIMS:
            print(f"  {victim}: {sum(kill['victim'] == victim for kill in hits)}")
        print(
            f"{ended} of {len(outcomes)} runs ended, {same} byte-identical to the undisturbed one"
        )
        if given.out:
            given.out.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
        if same < len(outcomes):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
