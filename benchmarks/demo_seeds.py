"""The demo over several seeds: external figures beside the oracle, federated beside pooled.

    python benchmarks/demo_seeds.py --seeds 1 2 3 4 5 --out runs/seeds

One line a seed as it finishes, then the means. A seed whose results exist is not run again.
"""

import argparse
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from protocol.stats import OverlapSums
from server.results import Results, load_results

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"


def merged(results: Results, arm: str, role: str, field: str) -> Any:
    """Add the sums of one field over the hospitals of a role."""
    sites = results.arms[arm].sites
    names = [h.name for h in results.hospitals if h.role == role and h.name in sites]
    parts = [part for name in names if (part := getattr(sites[name], field)) is not None]
    return reduce(lambda total, part: total.merge(part), parts)


def mean_dice(overlap: OverlapSums, class_name: str) -> float:
    return float(np.mean([overlap.cell("dice", class_name, p).mean for p in overlap.phases]))


def row(results: Results, arm: str) -> dict[str, float]:
    overlap = merged(results, arm, "external", "overlap")
    return {
        **{name: mean_dice(overlap, name) for name in ("LV", "MYO", "RV")},
        "C": merged(results, arm, "external", "pairs").c_index,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--config", type=Path, default=CONFIG)
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        if not (folder / "results.json").is_file():
            command = ["concors-sim", "run", str(options.config), "--seed", str(seed)]
            subprocess.run([*command, "--out", str(folder)], check=True, stdout=sys.stderr)
        results = load_results(folder / "results.json")
        fed, pooled = row(results, "federated"), row(results, "pooled")
        pairs = merged(results, "federated", "external", "pairs")
        (external,) = (h.name for h in results.hospitals if h.role == "external")
        oracle = results.oracle
        true_c = oracle.closed_form[external] if oracle else float("nan")
        realised = oracle.pairs[external].c_index if oracle else float("nan")
        se = pairs.standard_error
        lift = (fed["C"] - 0.5) / (true_c - 0.5)
        rows.append([*fed.values(), *pooled.values(), true_c, realised, se, lift])
        print(
            f"seed {seed}: federated LV {fed['LV']:.3f} MYO {fed['MYO']:.3f} RV {fed['RV']:.3f} "
            f"C {fed['C']:.3f} (SE {se:.3f}) | pooled LV {pooled['LV']:.3f} MYO "
            f"{pooled['MYO']:.3f} RV {pooled['RV']:.3f} C {pooled['C']:.3f} | oracle {true_c:.3f} "
            f"(on these patients {realised:.3f}) | lift {lift:.0%}",
            flush=True,
        )
    report(np.array(rows))


def report(table: np.ndarray) -> None:
    mean = table.mean(axis=0)
    dice_ratio = mean[0:3].mean() / mean[4:7].mean()
    difference = table[:, 3] - table[:, 7]
    se_mean = float(np.sqrt((table[:, 10] ** 2).mean() / len(table)))
    print(
        f"mean of {len(table)}: LV {mean[0]:.3f} MYO {mean[1]:.3f} RV {mean[2]:.3f}; C "
        f"{mean[3]:.3f}, oracle {mean[8]:.3f}, lift {(mean[3] - 0.5) / (mean[8] - 0.5):.0%}; "
        f"largest C - oracle {(table[:, 3] - table[:, 8]).max():+.3f} "
        f"({((table[:, 3] - table[:, 8]) / table[:, 10]).max():+.2f} SE); federated/pooled Dice "
        f"{dice_ratio:.4f}; C federated - pooled {difference.mean():+.3f}, SE of one C "
        f"{np.mean(table[:, 10]):.3f}, of the mean {se_mean:.3f}"
    )


if __name__ == "__main__":
    main()
