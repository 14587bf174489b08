"""What a process loads: nothing that it will not use, as every hospital and every restart pays."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("server.study", {"matplotlib", "scipy.stats", "server.report.write"}),
        ("client.site", {"scipy.ndimage", "client.quality", "torch"}),
        ("client.cli", {"scipy.ndimage", "torch"}),
        ("client.node.worker", {"scipy.ndimage", "torch"}),
        ("server.cli", {"torch", "matplotlib"}),
    ],
)
def test_a_module_leaves_out_what_is_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
