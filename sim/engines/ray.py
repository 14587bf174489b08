"""The two apps under Flower's Ray engine: one driver process, one Ray worker per CPU.

``flwr.simulation.run_simulation`` is deprecated in favour of ``flwr run``, which would start a
detached SuperLink that outlives the study; it is still the only public call that runs a study in
this process and stops everything it started. flwr is pinned, so the choice is ours to revisit.
"""

import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from flwr.supercore import telemetry

from deployment.flower import QUIET, environment, first_line
from protocol.errors import ConcorsError, EngineError
from sim.engines.contract import (
    RUN_VARIABLE,
    SITES_VARIABLE,
    STUDY_VARIABLE,
    check_inputs,
)
from sim.engines.ray_cluster import local_ray

__all__ = ["run_ray"]

# Longer than anything the engine still does once its workers are gone.
PATIENCE_S = 30.0


def run_ray(
    study_file: Path,
    run_dir: Path,
    sites: Sequence[Path],
    *,
    server_app: str = "server.app:app",
    client_app: str = "client.app:app",
    grace_s: float = 60.0,
) -> None:
    """Run a study under Flower's Ray engine, one virtual SuperNode per hospital.

    Parameters
    ----------
    study_file, run_dir : Path
        The study, and where the server writes its results.
    sites : sequence of Path
        One directory per hospital; entry i is partition i. Each client gets one CPU.
    server_app, client_app : str
        ``module:attribute`` of the two apps, importable here and in a Ray worker.
    grace_s : float
        Seconds that clients still at work get after the server is done, before they are killed.

    Raises
    ------
    ConfigError
        When an input is missing.
    EngineError
        When Ray is not installed or already runs in this process, or when an app raises anything
        but an error of this project; those pass through as they are.
    """
    study_file, run_dir, sites = check_inputs(study_file, run_dir, sites)
    server = _load(server_app, ServerApp)
    client = _load(client_app, ClientApp)
    # Flower reads its switch once, at import, which may have been before ours was set.
    telemetry.FLWR_TELEMETRY_ENABLED = QUIET["FLWR_TELEMETRY_ENABLED"]
    variables = {
        **QUIET,
        STUDY_VARIABLE: str(study_file),
        RUN_VARIABLE: str(run_dir),
        SITES_VARIABLE: os.pathsep.join(str(site) for site in sites),
    }
    num_cpus = min(len(sites), os.cpu_count() or 1)
    with environment(variables), local_ray(num_cpus) as kill_workers, _quiet_flower():
        simulation = _Simulation(server, client, len(sites))
        try:
            simulation.wait()
        except ConcorsError:
            raise
        except Exception as error:
            raise EngineError(
                f"The study failed under Ray with {type(error).__name__}: {first_line(str(error))}"
            ) from error
        except BaseException:
            grace_s = 0.0  # interrupted: nobody wants the replies
            raise
        finally:
            simulation.end(grace_s, kill_workers)


class _StoppableGrid(Grid):
    """A grid that passes every call on until it is told to stop, then refuses the next one.

    The server app runs in a thread, and Python cannot stop a thread from outside: without this,
    Ctrl-C would leave the server waiting for replies that will never come.
    """

    def __init__(self, grid: Grid, stopped: threading.Event) -> None:
        self._grid = grid
        self._stopped = stopped

    def _live(self) -> Grid:
        if self._stopped.is_set():
            raise EngineError("The engine was stopped; start the study again to resume it.")
        return self._grid

    def set_run(self, run: Any) -> None:
        self._live().set_run(run)

    @property
    def run(self) -> Any:
        return self._live().run

    def create_message(self, *args: Any, **kwargs: Any) -> Any:
        return self._live().create_message(*args, **kwargs)

    def get_node_ids(self) -> Any:
        return self._live().get_node_ids()

    def get_nodes(self) -> Any:
        return self._live().get_nodes()

    def push_messages(self, messages: Any) -> Any:
        return self._live().push_messages(messages)

    def pull_messages(self, message_ids: Any) -> Any:
        return self._live().pull_messages(message_ids)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        return self._live().send_and_receive(messages, timeout=timeout)


class _Simulation:
    """Flower's engine in a thread of its own, so that this one can end what it will not.

    By itself the engine waits without limit for clients at work, also when the server is done or
    when it is interrupted.
    """

    def __init__(self, server: ServerApp, client: ClientApp, num_sites: int) -> None:
        self._stopped = threading.Event()
        self._server_ended = threading.Event()
        self._completed = False
        self._server_error: BaseException | None = None
        wrapped = ServerApp()

        @wrapped.main()
        def main(grid: Grid, context: Context) -> None:
            try:
                server(_StoppableGrid(grid, self._stopped), context)
                self._completed = True
            except BaseException as error:
                self._server_error = error
                raise
            finally:
                self._server_ended.set()

        self._executor = ThreadPoolExecutor(1)
        self._engine = self._executor.submit(
            run_simulation,
            server_app=wrapped,
            client_app=client,
            num_supernodes=num_sites,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )

    def wait(self) -> None:
        """Wait for the server app, or for the engine when that fails; raise what it raised."""
        while not (self._server_ended.wait(0.2) or self._engine.done()):
            pass
        if self._server_error is not None:
            raise self._server_error
        if not self._completed:
            self._engine.result()

    def end(self, grace_s: float, kill_workers: Callable[[], None]) -> None:
        """Let clients at work finish for a while, then end everything."""
        self._stopped.set()
        if not wait([self._engine], timeout=grace_s).done:
            kill_workers()
            wait([self._engine], timeout=PATIENCE_S)
        self._executor.shutdown(wait=False)


def _load(reference: str, kind: type) -> Any:
    """Import an app; Flower's own loader would leave the working directory on ``sys.path``."""
    module, _, attribute = reference.partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise EngineError(
            f"The app {reference} cannot be imported ({error}); install the package that holds it."
        ) from error
    if not isinstance(app, kind):
        raise EngineError(
            f"{reference} is a {type(app).__name__}, not a {kind.__name__}; "
            "name the module and the variable that holds the app."
        )
    return app


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Keep Flower's warnings and errors, but neither its chatter nor the one notice we know."""

    def keep(record: logging.LogRecord) -> bool:
        return "`run_simulation` function is deprecated" not in record.getMessage()

    logger = logging.getLogger("flwr")
    level = logger.level
    logger.addFilter(keep)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(keep)
