"""The engines by name; each is imported by the process that runs it, and by no other."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

__all__ = ["Engine", "run_on"]

Engine = Literal["local", "ray", "deployment"]


def run_on(engine: Engine, study_file: Path, run_dir: Path, sites: Sequence[Path]) -> None:
    """Run a study on one of them, as `sim.engines.local.run_local` says."""
    getattr(import_module(f"sim.engines.{engine}"), f"run_{engine}")(study_file, run_dir, sites)
