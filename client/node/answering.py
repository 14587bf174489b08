"""From a message to its reply: one that is kept, or the worker's, or a sentence of ours.

Messages go to the worker, and replies to the disk and the server, in their parcels
(`protocol.parcels`); a message is opened here for a moment, to see of which study it is.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from flwr.app import Message, RecordDict

from client.approval import is_approved, study_hash_of
from client.node.jobs import Jobs
from client.node.kept import KeptReplies, request_id
from client.node.site_state import site_state
from client.node.worker import context_of
from client.node.worker_process import WorkerProcess
from client.policy import SitePolicy, load_policy
from client.recording import record_refusal
from client.site import load_site
from protocol.errors import ConcorsError, PayloadError, WorkerError
from protocol.parcels import opened
from protocol.refusal import Refusal

__all__ = ["Answering"]

LOOK_S = 0.1
# A reply after the request's own time would be thrown away: an error must still arrive.
IN_TIME = 0.8
log = logging.getLogger("concors.node")


class Answering:
    """Answers messages for one hospital.

    Parameters
    ----------
    site_dir : Path
        The hospital.
    worker : WorkerProcess
        Does the work; replaced when the hospital's files have changed since it was started.
    """

    def __init__(self, site_dir: Path, worker: WorkerProcess) -> None:
        self._site_dir = site_dir
        self._worker = worker
        self._state = ""
        # The request at hand, and of which study it is.
        self._study: tuple[str, str | None] = "", None
        self._kept = KeptReplies(site_dir / ".concors" / "node" / "kept")

    def answer(self, jobs: Jobs, message: Message, check: Callable[[], None]) -> Message:
        """Return the reply to a message; ``check`` is called while the worker works on it."""
        began = time.monotonic()
        try:
            reply = self._reply(jobs, message, check)
        except ConcorsError as error:
            reply = self._refused(message, error)
        except Exception as error:
            log.warning("the answer failed unexpectedly", exc_info=error)
            failed = WorkerError("The hospital's node failed unexpectedly; its own log says where.")
            reply = self._refused(message, failed)
        told = f"E{reply.error.code}" if reply.has_error() else "answered"
        kind = message.metadata.message_type
        log.info("%s: %s after %.1f s", kind, told, time.monotonic() - began)
        return reply

    def _refused(self, message: Message, error: ConcorsError) -> Message:
        """Write down what the app never saw, and so did not write down, and return the refusal."""
        refusal = Refusal.of(error)
        try:
            message = opened(message)
        except PayloadError:
            message = Message(RecordDict(), metadata=message.metadata)
        record_refusal(message, context_of(message, self._site_dir), refusal)
        return Message(refusal.to_error(), reply_to=message)

    def keep(self, request: str, message: Message, reply: Message) -> None:
        """Keep a reply of the worker's for whoever asks the same again."""
        known, study = self._study
        if known != request:
            study = study_hash_of(opened(message))
        if reply.has_error() or study is None:
            return
        work = self._policy().work
        self._kept.keep(
            study, request, reply.content, newest=work.kept_replies, max_mb=work.kept_mb
        )

    def _reply(self, jobs: Jobs, message: Message, check: Callable[[], None]) -> Message:
        until = time.monotonic() + IN_TIME * _remaining_s(message)
        state = site_state(self._site_dir)
        # First, as this bounds how large it may be.
        study = study_hash_of(opened(message))
        request = request_id(message, state)
        self._study = request, study
        # An approval that was taken back holds for what is kept as well; the worker says so.
        if study is not None and is_approved(self._site_dir, study):
            records = self._kept.find(study, request)
            if records is not None:
                log.info("asked before; the reply is the one that was kept")
                return Message(records, reply_to=message)
        if state != self._state:
            # What it holds in memory is of files that are not there any more.
            jobs.abandon()
            self._worker.end()
            self._state = state
        job = jobs.begin(request, message, self._policy().work.limit_s, until)
        return _addressed(_wait(job, check), message)

    def _policy(self) -> SitePolicy:
        return load_policy(self._site_dir, load_site(self._site_dir))


def _remaining_s(message: Message) -> float:
    metadata = message.metadata
    remaining_s = float(metadata.created_at + metadata.ttl - time.time())
    if remaining_s <= 0:
        raise PayloadError(
            "The request had expired before the hospital read it; if it was sent just now, the "
            "clocks of the server and the hospital disagree, so set them."
        )
    return remaining_s


def _wait(job: Future[Message], check: Callable[[], None]) -> Message:
    while not job.done():
        # What check raises is no failure of the job's, and ends the waiting for it.
        check()
        wait([job], timeout=LOOK_S)
    return job.result()


def _addressed(reply: Message, message: Message) -> Message:
    """Return a reply to this message with the content of one to an equal message."""
    if reply.has_error():
        return Message(reply.error, reply_to=message)
    return Message(reply.content, reply_to=message)
