"""Files with secrets, and files that a crash must not leave half written."""

import os
from pathlib import Path

__all__ = ["make_private_dir", "write_atomic", "write_private"]


def make_private_dir(path: Path) -> Path:
    """Make a directory that only its owner may enter; one that exists stays as it is."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner may read, from the first byte on; replace an old one."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def write_atomic(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file so that a reader, or the next start after a crash, sees the old or the new one.

    The content is on the disk before the name points to it (``rename`` alone may survive a power
    cut that the content did not).
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return path
