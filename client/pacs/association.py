"""One association of classic DICOM, counted, bounded and silent.

pynetdicom reads a frame (PDU) of whatever length its header states, waits without end for the rest
of it, and logs what it reads. So its `recv` is replaced for each connection by one that counts and
bounds, its logger is silent, and `client.pacs.watch` ends what hangs.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association

from client.intake.quiet import quietly
from client.pacs.settings import PacsSettings
from client.pacs.watch import Stop, Watch
from protocol.errors import TransferError

__all__ = ["BROKE_OFF", "NONSENSE", "PDU_BYTES", "associated", "bounded", "silent"]

PDU_BYTES = 131_072
MAX_PDU_BYTES = 1 << 20
CHUNK_BYTES = 65_536
NONSENSE = "the archive answers what is not DICOM; check pacs.host, pacs.port and pacs.tls."
BROKE_OFF = "the archive broke off the association; look into its log."

Handlers = list[Any]


@contextmanager
def associated(
    settings: PacsSettings,
    watch: Watch,
    tls: Any,
    contexts: list[Any],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """Open an association with the archive; release it, or abort it after an error.

    Parameters
    ----------
    tls : tuple or None
        (context, name of the archive).
    contexts, roles : sequence
        Presentation contexts and roles to propose.
    handlers : sequence of tuple
        Further (event, handler).

    Raises
    ------
    TransferError
        If the archive cannot be reached, refuses, or offers no such service.
    """
    entity = _Entity(settings.own_ae_title)
    entity.connection_timeout = entity.acse_timeout = settings.connect_timeout_s
    # Silence is the watch's matter: a large file may take longer than any wait for an answer.
    entity.dimse_timeout = settings.study_timeout_s + settings.connect_timeout_s
    entity.network_timeout = None
    line = entity.associate(
        settings.host,
        settings.port,
        contexts,
        settings.ae_title,
        PDU_BYTES,
        list(roles),
        tls_args=tls,
        evt_handlers=[(evt.EVT_CONN_OPEN, bounded(settings, watch)), *handlers],
    )
    try:
        watch.check()
        if not line.is_established:
            raise TransferError(_not_established(line, reached=entity.transport.reached))
        yield line
        line.release()
    except (ValueError, RuntimeError) as error:
        # What pynetdicom raises where the peer did not accept what a request needs.
        raise TransferError(
            "the archive does not offer this service; try another pacs.protocol."
        ) from error
    finally:
        if line.is_established:
            line.abort(block=False)


def bounded(settings: PacsSettings, watch: Watch) -> Callable[[evt.Event], None]:
    """Return a handler of a connection's opening that has the watch count what is read."""

    def opened(event: evt.Event) -> None:
        line: Any = event.assoc
        transport = line.dul.socket
        transport.reached = True
        transport._shutdown_socket = partial(_close, transport)
        connection = transport.socket
        connection.settimeout(settings.silence_timeout_s)
        watch.opened(connection)

        def receive(num_bytes: int) -> bytearray:
            if num_bytes > MAX_PDU_BYTES:
                raise Stop("longer than a frame may be")
            content = bytearray()
            while len(content) < num_bytes:
                part = connection.recv(min(num_bytes - len(content), CHUNK_BYTES))
                if not part:
                    break
                content += part
                # Whoever knocks without being let in is no reason to end a study.
                if line.is_requestor or line.is_established:
                    watch.count(len(part))
            return content

        transport.recv = receive

    return opened


@contextmanager
def silent(watch: Watch) -> Iterator[None]:
    """Keep pynetdicom from logging, printing and warning of what it reads."""

    def failed(happened: threading.ExceptHookArgs) -> None:
        # A thread of pynetdicom's met something it cannot parse; who waits for it must hear.
        watch.fail(NONSENSE)
        line = getattr(happened.thread, "assoc", None)
        if line is not None:
            line.dimse.msg_queue.put((None, None))

    logger = logging.getLogger("pynetdicom")
    before = (
        logger.level,
        threading.excepthook,
        _config.LOG_REQUEST_IDENTIFIERS,
        _config.LOG_RESPONSE_IDENTIFIERS,
    )
    logger.setLevel(logging.CRITICAL + 1)
    threading.excepthook = failed
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    try:
        with quietly():
            yield
    finally:
        logger.setLevel(before[0])
        threading.excepthook = before[1]
        _config.LOG_REQUEST_IDENTIFIERS, _config.LOG_RESPONSE_IDENTIFIERS = before[2:]


class _Entity(AE):
    """One that remembers its connection; pynetdicom forgets one that failed, and leaves it open."""

    transport: Any = None

    def _create_socket(self, *arguments: Any, **more: Any) -> Any:
        self.transport = super()._create_socket(*arguments, **more)
        self.transport.reached = False
        self.transport._shutdown_socket = partial(_close, self.transport)
        return self.transport


def _close(transport: Any) -> None:
    connection = transport.socket
    if connection is None:
        return
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _not_established(line: Association, *, reached: bool) -> str:
    if line.is_rejected:
        return (
            "the archive refuses the association; check pacs.ae_title, and that the archive knows "
            "pacs.own_ae_title."
        )
    if reached:
        return NONSENSE
    return "the archive cannot be reached; check pacs.host, pacs.port, pacs.tls and the network."
