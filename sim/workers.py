"""Processes that do the simulator's work and never outlive it."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from threading import Thread

__all__ = ["worker_processes"]


def worker_processes(number: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes that end when this one does, however it ends.

    Spawned, not forked: torch's threads do not survive a fork.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(number, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    # A pool's processes otherwise go on for hours when their parent is killed.
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
