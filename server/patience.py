"""Where Flower waits by itself longer than a round may.

``Grid.pull_messages`` fetches a reply as soon as it is announced, and then waits up to two hours
for a hospital to upload the rest of it, also when that hospital has meanwhile lost its power. A
round has a deadline, so the wait has one too, and it ends when the hospital has forgotten what it
was sending. Flower offers no argument for it: the function it calls is replaced while we wait
(flwr 1.41.0 exactly).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.superlink.grid import http_grid

__all__ = ["bounded_pulls"]

# A first look at once and the next ones soon: hospitals announce a reply and upload it in one go.
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.05, 0.2


def _never() -> bool:
    return False


@contextmanager
def bounded_pulls(seconds: float, forgotten: Callable[[], bool] = _never) -> Iterator[None]:
    """Give up on a reply whose parts are not there in time; Flower then calls the reply lost.

    Parameters
    ----------
    seconds : float
        The longest wait; 0 or less takes what is there and no more.
    forgotten : callable
        Whether the sender has forgotten the reply, asked each time a part is missing; may be
        called from several threads.
    """
    original = http_grid.pull_objects

    def pull_objects(
        object_ids: list[str], pull_object_fn: Callable[[str], bytes], **options: Any
    ) -> dict[str, bytes]:
        def pull_object(object_id: str) -> bytes:
            try:
                return pull_object_fn(object_id)
            except ObjectUnavailableError:
                if forgotten():
                    reason = "its sender was started anew"
                    raise ObjectPullError(object_id, reason) from None
                raise

        bounds = {
            "max_time": max(seconds, 0.0),
            "initial_backoff": FIRST_BACKOFF_S,
            "backoff_cap": LONGEST_BACKOFF_S,
        }
        found: dict[str, bytes] = original(object_ids, pull_object, **(options | bounds))
        return found

    http_grid.pull_objects = pull_objects
    try:
        yield
    finally:
        http_grid.pull_objects = original
