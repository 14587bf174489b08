"""Claim: a process loads what it uses: a worker no compiler, a server app no drawing.

Each line is a piece of work in fresh processes, ours and the same with what is usual there or was
loaded before, taking turns: the first step of an optimizer with `client.local_optimizer` and with
``torch.optim``; the code of a server app, without and with the report's; a hospital's settings,
without and with what measures its images. Processor time, median of several.

Run on a quiet machine: ``python benchmarks/start_up.py [--repeats 7]``
"""

import argparse
import statistics
import subprocess
import sys

PARAMETER = "import torch; p = torch.nn.Parameter(torch.ones(4, 4)); p.grad = torch.ones(4, 4)"
# What is done before the clock starts, ours, and theirs.
CASES = {
    "first AdamW step": (
        PARAMETER,
        "import client.local_optimizer as o; o.LocalOptimizer('adamw', [p], 0.0).step(1.0)",
        "torch.optim.AdamW([p], 1.0, weight_decay=0, fused=True).step()",
    ),
    "code of a server app": (
        "",
        "import server.study",
        "import server.study, server.report.write, scipy.stats",
    ),
    "settings of a site": ("", "import client.site", "import client.site, client.quality"),
}


def seconds(before: str, work: str) -> float:
    """Return the processor time of a piece of work in a process of its own."""
    code = (
        f"{before}\nimport time\nstart = time.process_time()\n{work}\n"
        "print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure, then print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"{'processor seconds':22}{'ours':>8}{'theirs':>8}{'less':>8}")
    for name, (before, *works) in CASES.items():
        taken = [[seconds(before, work) for work in works] for _ in range(repeats)]
        ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{name:22}{ours:8.2f}{theirs:8.2f}{theirs - ours:8.2f}", flush=True)


if __name__ == "__main__":
    main()
