"""Claim: with epsilon 8 a hospital the demo keeps an external LV Dice of 0.80 and half the lift.

    python benchmarks/private_demo.py --out runs/private

Five runs on phantoms, one line each as it finishes: the demo of one seed, from whose networks
private training begins (public data, as it were); the demo of another seed without privacy, which
is the measure; on those same hospitals ``configs/demo_private.yaml`` from the pre-trained networks;
the same with a learning rate of nothing, which shows what the pre-training does alone; and private
training from random weights at the demo's own rates, which shows what privacy costs so few
patients. A run whose results exist is not run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml
from demo_seeds import row

from client.policy import site_ledger
from server.results import Results, load_results

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DICE_BAR, LIFT_BAR = 0.80, 0.5


def variant(config: Path, folder: Path, rates: tuple[float, float] | None = None) -> Path:
    """Write a study without comparators, and with other rates of its stages if given."""
    content = yaml.safe_load(config.read_text())
    content["simulation"]["comparators"] = []
    for stage, rate in zip(("segment", "prognosis"), rates or (), strict=False):
        content["study"][stage]["training"]["learning_rate"] = rate
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(folder: Path, config: Path, seed: int, start_from: Path | None = None) -> Results:
    """Run a study unless its results are there."""
    if not (folder / "results.json").is_file():
        command = ["concors-sim", "run", str(config), "--seed", str(seed), "--out", str(folder)]
        if start_from is not None:
            command += ["--start-from", str(start_from)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return load_results(folder / "results.json")


def spent(folder: Path, results: Results) -> str:
    """Return what each training hospital's ledger says, epsilon at delta 0.001."""
    told = []
    for hospital in results.hospitals:
        ledger = site_ledger(folder / "hospitals" / hospital.name)
        if entries := ledger.entries():
            told.append(f"{hospital.name} {entries[-1].lifetime_epsilon:.2f}")
    return ", ".join(told) or "none"


def write_utility(path: Path, found: dict[str, dict[str, float]], folder: Path) -> None:
    """Write what privacy costs training that begins from random weights."""
    hospital = load_results(folder / "results.json").hospitals[0]
    entry = site_ledger(folder / "hospitals" / hospital.name).entries()[-1]
    known = {"num_patients": 66, "epsilon": round(entry.lifetime_epsilon, 3), "delta": entry.delta}
    points = [
        {
            "stage": stage,
            "metric": metric,
            **known,
            "value": round(found["from nothing"][name], 4),
            "value_without": round(found["open"][name], 4),
            "num_seeds": 1,
        }
        for stage, metric, name in (("segment", "dice", "LV"), ("prognosis", "c_index", "C"))
    ]
    source = "benchmarks/private_demo.py, training that begins from random weights"
    path.write_text(json.dumps({"source": source, "points": points}, indent=2) + "\n")


def main() -> int:
    """Print the four lines and what is claimed; exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/private"))
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument(
        "--utility", type=Path, help="file of points for concors-client plan-privacy"
    )
    parser.add_argument("--other-seed", type=int, default=1, help="of the pre-training")
    options = parser.parse_args()
    out, found = options.out, {}
    open_demo, private = CONFIGS / "demo.yaml", CONFIGS / "demo_private.yaml"
    pretrained = out / "pretrained"
    plans = {
        "pretrained": (open_demo, options.other_seed, None, None),
        "open": (open_demo, options.seed, None, None),
        "untouched": (private, options.seed, pretrained, (1e-12, 1e-12)),
        "private": (private, options.seed, pretrained, None),
        "from nothing": (private, options.seed, None, (3e-3, 1e-2)),
    }
    for name, (config, seed, start, rates) in plans.items():
        folder = out / name.replace(" ", "-")
        results = run(folder, variant(config, folder, rates), seed, start)
        found[name] = row(results, "federated")
        figures = "  ".join(f"{key} {value:.3f}" for key, value in found[name].items())
        print(f"{name:12} seed {seed}  {figures}  epsilon: {spent(folder, results)}", flush=True)
    if options.utility is not None:
        write_utility(options.utility, found, out / "from-nothing")
    lift = (found["private"]["C"] - 0.5) / (found["open"]["C"] - 0.5)
    good = found["private"]["LV"] >= DICE_BAR and lift >= LIFT_BAR
    print(
        f"private: LV Dice {found['private']['LV']:.3f} (claim {DICE_BAR}), {lift:.0%} of the lift "
        f"without privacy (claim {LIFT_BAR:.0%}){'' if good else '  MISSED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
