"""Both apps in this process: no network, no Ray, the same code paths as a deployment."""

from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context, RecordDict

from sim.engines.contract import (
    RUN_DIR_KEY,
    SITE_KEY,
    STUDY_KEY,
    check_inputs,
)
from sim.grid import LocalGrid

__all__ = ["run_local"]


def run_local(study_file: Path, run_dir: Path, sites: Sequence[Path]) -> None:
    """Run a study with one node per hospital directory.

    Parameters
    ----------
    study_file, run_dir : Path
        The study, and where the server writes its results.
    sites : sequence of Path
        One directory per hospital.

    Raises
    ------
    ConcorsError
        What the server raises; here it is not wrapped by Flower.
    """
    from client.app import app as client_app
    from server.app import app as server_app

    study_file, run_dir, sites = check_inputs(study_file, run_dir, sites)
    grid = LocalGrid(client_app, [{SITE_KEY: str(site)} for site in sites])
    context = Context(
        run_id=1,
        node_id=1,
        node_config={},
        state=RecordDict(),
        run_config={STUDY_KEY: str(study_file), RUN_DIR_KEY: str(run_dir)},
    )
    server_app(grid, context)
