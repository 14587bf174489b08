"""One Ray of our own: on this machine, on the loopback address, gone when the study is over."""

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from deployment.flower import environment
from protocol.errors import EngineError

__all__ = ["local_ray"]

# Ray reads these when it is imported or started. The first makes it listen on the loopback
# address only (its name tells of the platforms where that is the default); the second leaves the
# choice of device to the hospital's own settings instead of hiding every GPU from the workers.
RAY_VARIABLES = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def local_ray(num_cpus: int) -> Iterator[Callable[[], None]]:
    """Start Ray with some workers; stop it, and bury its processes, on the way out.

    Workers inherit the environment of this process, and find the modules that it finds.

    Parameters
    ----------
    num_cpus : int
        How many workers may be at work at once, each with one CPU.

    Yields
    ------
    callable
        Kills the workers at once, from any thread; whoever waits for one gets an error. (Stopping
        Ray itself would leave them waiting for ever.)

    Raises
    ------
    EngineError
        When Ray is not installed, or already runs in this process: its workers would not know
        the environment variables of this study.
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with environment({**RAY_VARIABLES, "PYTHONPATH": path}), _sigterm_handler_kept():
        try:
            import ray
            from ray._private import ray_constants, state, worker
        except ImportError as error:
            raise EngineError(
                "Ray is not installed; install it with: pip install 'concors[ray]'."
            ) from error
        if ray.is_initialized():
            raise EngineError(
                "Ray already runs in this process, and its workers would not know this study's "
                "hospitals; call ray.shutdown() first."
            )
        # As the variable above, should Ray have been imported before it was set.
        ray_constants.ENABLE_RAY_CLUSTER = False
        started: list[subprocess.Popen[bytes]] = []
        try:
            # "local": never join a cluster that some RAY_ADDRESS points to.
            with _open_files_collected():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    logging_level="WARNING",
                )
            groups = worker._global_node.all_processes.values()
            started = [info.process for group in groups for info in group]
            yield partial(_kill_workers, state)
        finally:
            with _open_files_collected():
                ray.shutdown()
            # Ray kills what does not end within a second, but does not wait for it.
            for process in started:
                process.wait(timeout=30)


def _kill_workers(state: Any) -> None:
    for actor in state.actors().values():
        if actor["State"] == "ALIVE":
            with suppress(ProcessLookupError):
                os.kill(actor["Pid"], signal.SIGKILL)


@contextmanager
def _open_files_collected() -> Iterator[None]:
    """Collect, without a word, the files that Ray opens for its processes and never closes.

    Otherwise they are found much later, in somebody else's name.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed file .*/dev/null", ResourceWarning)
        yield
        gc.collect()


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Put back the SIGTERM handler that Ray replaces (only the main thread may set one)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
