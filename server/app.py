"""The ServerApp: find the study, run it. The same under every engine."""

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from deployment.logs import configure
from protocol.config import load_study
from protocol.errors import ConcorsError, ConfigError

app = ServerApp()


def _setting(context: Context, key: str, variable: str) -> Path:
    value = str(context.run_config.get(key) or os.environ.get(variable, ""))
    if not value:
        raise ConfigError(
            f"The server was not told its {key}; set it in the run configuration or in {variable}."
        )
    return Path(value)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study named by ``study-file`` into the folder named by ``run-dir``."""
    # Imported here, because loading this module must stay cheap: Flower loads it to check it.
    from server.outcome import Outcome, write_outcome
    from server.packing import packing
    from server.study import run_study

    configure()
    run_dir = _setting(context, "run-dir", "CONCORS_RUN")
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        run_study(
            packing(grid), load_study(_setting(context, "study-file", "CONCORS_STUDY")), run_dir
        )
    except ConcorsError as error:
        write_outcome(run_dir, Outcome(context.run_id, error.code, error.sentence))
        raise
    write_outcome(run_dir, Outcome(context.run_id))
