"""The README's ``bash`` blocks run as they stand, in one empty directory, in their order.

``sh`` blocks (the demo, the suite itself, other engines) are run by other tests or take minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)


def test_the_readme_has_something_to_run() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readme_blocks_run(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in BLOCKS:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def test_every_file_the_readme_names_exists() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for name in re.findall(r"(?:configs|benchmarks)/[\w.]+\.(?:yaml|md|py)", text):
        assert (REPOSITORY / name).is_file(), name
