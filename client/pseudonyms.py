"""Patient numbers become keyed hashes at the door; the key never leaves the hospital.

A plain hash of a hospital number is undone by hashing every number there can be. HMAC-SHA256 with a
secret of the hospital's own (RFC 2104) is not, and two hospitals give one person different keys.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from protocol.errors import DataError

__all__ = ["load_secret", "pseudonym"]

SECRET_BYTES = 32


def load_secret(site_dir: Path, file_name: str) -> bytes:
    """Return the hospital's key; make it, readable by its owner only, on first use.

    Raises
    ------
    DataError
        If the file holds fewer than 32 bytes of hexadecimal text or cannot be read or made.
    """
    path = site_dir / file_name
    if not path.exists():
        _make(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise DataError(
            f"the secret {file_name} cannot be read as hexadecimal text; restore it from a backup."
        ) from error
    if len(key) < SECRET_BYTES:
        raise DataError(
            f"the secret {file_name} is shorter than {SECRET_BYTES} bytes; "
            "restore it from a backup."
        )
    return key


def _make(path: Path) -> None:
    # Written aside and linked into place: of two processes that start together one wins, and
    # neither ever reads half a key.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
            stream.write(secrets.token_hex(SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    except OSError as error:
        raise DataError(
            f"the secret {path.name} cannot be made ({error.strerror}); "
            "make the site's directory writable."
        ) from error


def pseudonym(secret: bytes, patient_id: str) -> str:
    """Return the key of a patient: 16 hexadecimal digits of HMAC-SHA256."""
    return hmac.new(secret, patient_id.strip().encode(), hashlib.sha256).hexdigest()[:16]
