"""Whether a hospital's own files are what they were: settings, tables, and folders of images.

What the worker holds in memory and what was kept of its replies is good for the files it was
computed from. Of folders the times count, not the files in them: a folder's time changes when a
file is added, removed or renamed, and ten thousand files on a network drive would take a minute a
message. A file that is written over in place is noticed when the node is started anew.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from client.policy import POLICY_FILE
from client.site import SITE_FILE, SiteConfig, load_site
from protocol.code import code_hash

__all__ = ["site_state"]


def site_state(site_dir: Path) -> str:
    """Return a hash that changes with the hospital's files or with the installed code.

    Raises
    ------
    ConfigError
        If ``site.yaml`` is wrong.
    """
    whole = hashlib.sha256(code_hash().encode())
    config = load_site(site_dir)
    for place in [site_dir, *((site_dir / member).resolve() for member in config.members)]:
        settings = config if place == site_dir else load_site(place)
        for path in _watched(place, settings):
            whole.update(f"{path}\0{_times(path)}\n".encode())
    return whole.hexdigest()


def _watched(site_dir: Path, config: SiteConfig) -> Iterator[Path]:
    yield site_dir / SITE_FILE
    yield site_dir / POLICY_FILE
    images, outcomes, masks, ecg = config.images, config.outcomes, config.masks, config.ecg
    files = [
        outcomes.path if outcomes else None,
        images.overrides if images else None,
        images.sorter if images else None,
        masks.link if masks else None,
    ]
    yield from (site_dir / name for name in files if name)
    for part in (images, masks, ecg):
        if part is not None:
            yield from _folders(site_dir / part.path)


def _folders(root: Path) -> Iterator[Path]:
    yield root
    for folder, names, _ in os.walk(root):
        names.sort()
        yield from (Path(folder) / name for name in names)


def _times(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "absent"
    return f"{found.st_mtime_ns} {found.st_size}"
