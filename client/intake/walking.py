"""The files below a folder, and how many of them a site reads at most; links are not followed."""

import os
from pathlib import Path

from protocol.errors import DataError

__all__ = ["DRAFT_SUFFIX", "MAX_FILES", "MAX_STUDY_IMAGES", "files_below"]

MAX_FILES = 2_000_000
# A cardiac examination has hundreds to a few thousand images.
MAX_STUDY_IMAGES = 20_000
# A file that is being fetched; it gets its name when it is whole.
DRAFT_SUFFIX = ".part"


def files_below(root: Path, limit: int = MAX_FILES) -> list[str]:
    """Return all files below a folder in a fixed order: a folder's own, sorted, then its folders'.

    Symbolic links are listed, for whoever opens a file to refuse them, and never entered; so no
    loop has no end, and none leads out of the folder. Depth is no matter, as nothing recurses.

    Raises
    ------
    DataError
        If there are more than ``limit``.
    """
    found: list[str] = []
    folders = [str(root)]
    while folders:
        entries = _entries(folders.pop())
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) and not _is_draft(entry.name):
                found.append(entry.path)
        folders.extend(e.path for e in reversed(entries) if e.is_dir(follow_symlinks=False))
        if len(found) > limit:
            raise DataError(
                f"a folder that site.yaml names holds more than {limit} files; give each site a "
                "folder of its own, or raise images.max_files."
            )
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError:
        # Not readable, or gone meanwhile; what lies in it is missing, not wrong.
        return []


def _is_draft(name: str) -> bool:
    return name.startswith(".") and name.endswith(DRAFT_SUFFIX)
