"""Claim: int8 with error feedback sends 27 % of the bytes and changes Dice and C-index by <= .005.

    python benchmarks/compression.py --out runs/compression

The federated arm of the demo on the same phantom hospitals, once for each way of packing, in both
directions; one line each as it finishes. Bytes are what was counted where it passed, documents and
headers too. A run whose results exist is not run again. With ``--config configs/metabric.yaml`` the
same of a survival network without images, in a few minutes.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from demo_seeds import CONFIG, mean_dice, merged

from server.results import Results, load_results

BYTES_BAR, ACCURACY_BAR = 0.27, 0.005
WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "int8": {"up": "int8", "down": "int8"},
    "bf16": {"up": "bf16", "down": "bf16"},
    "top-k": {"up": "top-k", "down": "int8", "fraction": 0.05},
}


def run(config: Path, folder: Path, way: dict[str, Any], first: Path, seed: int | None) -> Results:
    """Run a study with one way of packing, unless its results are there."""
    if not (folder / "results.json").is_file():
        content = yaml.safe_load(config.read_text())
        content["simulation"]["comparators"] = []
        content["study"].setdefault("rounds", {})["compression"] = way
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        made, own = first / "hospitals", folder / "hospitals"
        if made.is_dir() and not own.is_dir():
            # The images and what was read of them, not what another run left at the hospitals.
            shutil.copytree(made, own, ignore=shutil.ignore_patterns("studies"))
        command = ["concors-sim", "run", str(file), "--out", str(folder)]
        seeded = [] if seed is None else ["--seed", str(seed)]
        subprocess.run([*command, *seeded], check=True, stdout=sys.stderr)
    return load_results(folder / "results.json")


def sent(results: Results) -> dict[str, float]:
    """Return the bytes that went each way in each stage, and those of all but the first rounds."""
    found = {}
    for stage, training in results.training.items():
        found[f"{stage} up"] = float(sum(training.bytes_up))
        found[f"{stage} down"] = float(sum(training.bytes_down))
        found[f"{stage} down, later rounds"] = float(sum(training.bytes_down[1:]))
    return found


def figures(results: Results) -> dict[str, float]:
    """Return the mean Dice, where there are masks, and the C-index at the external hospital."""
    found = {"C": merged(results, "federated", "external", "pairs").c_index}
    if "segment" in results.training:
        overlap = merged(results, "federated", "external", "overlap")
        dice = [mean_dice(overlap, name) for name in ("LV", "MYO", "RV")]
        found = {"Dice": float(np.mean(dice)), **found}
    return found


def main() -> int:
    """Print a line a way and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/compression"))
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    whole: dict[str, float] = {}
    plain: dict[str, float] = {}
    good = True
    for name in ("none", *(way for way in options.ways if way != "none")):
        folder = options.out / name
        results = run(options.config, folder, WAYS[name], options.out / "none", options.seed)
        counted, found = sent(results), figures(results)
        whole, plain = whole or counted, plain or found
        shares = {key: counted[key] / whole[key] for key in counted}
        moved = {key: found[key] - plain[key] for key in found}
        told = "  ".join(f"{key} {value:.1%}" for key, value in shares.items())
        judged = "  ".join(f"{key} {found[key]:.4f} ({moved[key]:+.4f})" for key in found)
        print(f"{name:6} {judged}  {told}", flush=True)
        if name == "int8":
            up = max(share for key, share in shares.items() if key.endswith(" up"))
            good = up <= BYTES_BAR and max(map(abs, moved.values())) <= ACCURACY_BAR
    print(f"int8: at most {BYTES_BAR:.0%} up, within {ACCURACY_BAR}{'' if good else '  MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
