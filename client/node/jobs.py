"""The hospital's work, one job at a time, going on even while its node is started anew.

A job is known by what it was asked (`client.node.kept.request_id`). When the connection to the
server breaks while a job runs, the job runs on; the server asks again, and the same job is found.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from flwr.app import Message

from client.node.worker_process import WorkerLost, WorkerProcess
from protocol.errors import ConcorsError, WorkerError
from protocol.refusal import Refusal

__all__ = ["Jobs"]

TRIES = 2
log = logging.getLogger("concors.node")


class Jobs:
    """At most one job under way.

    Parameters
    ----------
    worker : WorkerProcess
        Does the work.
    finished : callable
        ``finished(request, message, reply)`` is called, in the job's thread, with every reply of
        the worker's.
    """

    def __init__(
        self, worker: WorkerProcess, finished: Callable[[str, Message, Message], None]
    ) -> None:
        self._worker = worker
        self._finished = finished
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="job")
        self._request = ""
        self._job: Future[Message] | None = None
        self._abandoned = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abandon()
        self._pool.shutdown()

    def begin(
        self, request: str, message: Message, limit_s: float, until: float
    ) -> Future[Message]:
        """Return the job that answers a request: the one under way, or a new one.

        A job under way for another request is given up: nobody waits for it any more.
        """
        if self._job is not None and not self._job.done() and self._request == request:
            return self._job
        self.abandon()
        self._abandoned.clear()
        self._request = request
        self._job = self._pool.submit(self._answer, request, message, limit_s, until)
        return self._job

    def abandon(self) -> None:
        """Give up the job under way, if there is one, and end the worker that does it."""
        job, self._job = self._job, None
        if job is None or job.done():
            return
        log.warning("what the worker does is not asked for any more; it is replaced")
        self._abandoned.set()
        while not job.done():
            # It may be just starting a worker: end that one as well.
            self._worker.end()
            wait([job], timeout=0.2)

    def _answer(self, request: str, message: Message, limit_s: float, until: float) -> Message:
        try:
            reply = self._tried(message, limit_s, until)
            self._after(request, message, reply)
            return reply
        except ConcorsError as failure:
            error = failure
        except Exception as failure:
            log.warning("the work failed unexpectedly", exc_info=failure)
            error = WorkerError("The hospital's node failed unexpectedly; its own log says where.")
        return Message(Refusal.of(error).to_error(), reply_to=message)

    def _tried(self, message: Message, limit_s: float, until: float) -> Message:
        for attempt in range(TRIES):
            if self._abandoned.is_set():
                break
            try:
                return self._worker.ask(message, limit_s, until)
            except WorkerLost:
                log.warning("the worker was lost (try %d of %d)", attempt + 1, TRIES)
                if attempt + 1 == TRIES:
                    raise
        raise WorkerError("The work was given up, as nobody waits for it any more.")

    def _after(self, request: str, message: Message, reply: Message) -> None:
        self._finished(request, message, reply)
        out_of_memory = reply.has_error() and reply.error.code == int(WorkerError.code[1:])
        if out_of_memory:
            # What it still holds would be missing for the next request too.
            log.warning("the worker ran out of memory; it is replaced")
            self._worker.end()
