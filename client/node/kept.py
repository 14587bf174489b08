"""Replies on the hospital's disk: who asks the same again gets the same bytes, without new work.

A server that was started anew asks again what it had asked, and so does one whose hospital's node
was started anew; the training of an hour must not be done twice, nor noise be drawn twice. A reply
is known by the SHA-256 of what it answers: type and content of the request, and the state of the
hospital's own files. Refusals are not kept: what stood in the way may be mended.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from flwr.app import Message, RecordDict

from protocol.errors import PayloadError
from protocol.names import content_id
from protocol.parts import assemble, framed, parts_in

__all__ = ["KeptReplies", "request_id"]

log = logging.getLogger("concors.node")


def request_id(message: Message, state: str = "") -> str:
    """Return by what a request is known: 64 hexadecimal digits.

    Parameters
    ----------
    state : str
        Of the hospital's files (`client.node.site_state`).
    """
    kind = message.metadata.message_type
    return hashlib.sha256(f"{kind}\n{content_id(message)}\n{state}".encode()).hexdigest()


class KeptReplies:
    """The replies of one hospital, one file each: ``<study>/<request>``.

    A file is the id of the reply's records and then its parts, each after its length. As the id of
    the whole follows from the bytes of every part, a file that was torn or altered is not read.

    Parameters
    ----------
    folder : Path
        Made when the first reply is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, study: str, request: str) -> RecordDict | None:
        """Return the records of a kept reply, or None."""
        path = self._folder / study / request
        try:
            with path.open("rb") as stream:
                identity = stream.read(64).decode("ascii")
                records = assemble(parts_in(stream.read))
            if not isinstance(records, RecordDict) or records.object_id != identity:
                raise PayloadError("A kept reply is not what its name says; it is not used.")
            # The newest are kept: one that is asked for is one of them.
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, PayloadError) as error:
            log.warning("a kept reply cannot be read and is not used (%s)", type(error).__name__)
            _remove(path)
            return None
        return records

    def keep(
        self, study: str, request: str, records: RecordDict, *, newest: int, max_mb: float
    ) -> bool:
        """Keep a reply, and drop older ones beyond the bounds; say whether it was kept.

        A full disk loses the keeping and not the reply: it is told to the log.

        Parameters
        ----------
        newest : int
            So many of this study.
        max_mb : float
            Of all studies together.
        """
        if newest < 1 or max_mb <= 0:
            return False
        place = self._folder / study
        scratch = place / f"{request}.new"
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with scratch.open("wb") as stream:
                stream.write(records.object_id.encode("ascii"))
                for data in framed(records):
                    stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(place / request)
            _sync(place)
            self._bound(place, newest, max_mb)
        except OSError as error:
            log.warning("a reply could not be kept (%s); it is sent all the same", error.strerror)
            _remove(scratch)
            return False
        return (place / request).exists()

    def _bound(self, place: Path, newest: int, max_mb: float) -> None:
        for path in _newest_first(place.iterdir())[newest:]:
            _remove(path)
        size = 0
        for path in _newest_first(self._folder.glob("*/*")):
            size += path.stat().st_size
            if size > max_mb * 1e6:
                _remove(path)


def _newest_first(paths: Iterator[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a kept reply could not be removed (%s)", error.strerror)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
