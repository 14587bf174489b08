"""Who called at the hospitals' port: one JSON line a request, and no more lines than fit.

A line tells when, from which address, which path, with which answer, how much went in and out, and
which node key was shown. It holds nothing of what was said.
"""

import json
import logging
from base64 import b64decode
from datetime import UTC, datetime
from functools import lru_cache
from logging.handlers import RotatingFileHandler
from pathlib import Path

from deployment.papers import fingerprint_of
from protocol.errors import PaperError

__all__ = ["AccessLog", "shown_fingerprint"]

MAX_FILE_BYTES = 32 * 2**20
NUM_FILES = 8
# What a stranger writes into a path is his choice.
MAX_PATH = 120


@lru_cache(maxsize=256)
def shown_fingerprint(header: str) -> str:
    """Return the fingerprint of the node key in a header (base64 of PEM), or what is wrong with it.

    That the caller has the private key is only shown by the answer not being 401.
    """
    try:
        return fingerprint_of(b64decode(header, validate=True).decode())
    except (ValueError, PaperError):
        return "not a key"


class AccessLog:
    """The log's file; the oldest lines go when there are too many.

    Parameters
    ----------
    path : Path
        Older lines are in ``<path>.1`` and so on.
    max_bytes : int
        Length of one file.
    num_files : int
        How many older ones are kept.
    """

    def __init__(
        self, path: Path, max_bytes: int = MAX_FILE_BYTES, num_files: int = NUM_FILES
    ) -> None:
        self._handler = RotatingFileHandler(
            path, maxBytes=max_bytes, backupCount=num_files, encoding="utf-8"
        )

    def write(
        self, *, ip: str, path: str, status: int, bytes_in: int, bytes_out: int, key: str
    ) -> None:
        """Write the line of one request; ``key`` is a fingerprint or empty."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "ip": ip,
            "path": path if len(path) <= MAX_PATH else path[:MAX_PATH] + "...",
            "status": status,
            "in": bytes_in,
            "out": bytes_out,
            "key": key,
        }
        text = json.dumps(line, separators=(",", ":"))
        self._handler.emit(logging.LogRecord("access", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
