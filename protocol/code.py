"""Which code is installed: one hash over the sources of every package of ours."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from protocol.errors import ConfigError

__all__ = ["PACKAGES", "code_hash"]

PACKAGES = (
    "client",
    "deployment",
    "privacy",
    "protocol",
    "server",
    "shared_models",
    "sim",
    "strategies",
)


def _sources() -> list[tuple[str, Path]]:
    """Return each source file under its name within the packages, sorted."""
    found = []
    for package in PACKAGES:
        # Looked up, not imported: a hospital need not load the code of the centre to hash it.
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"The package {package} is not installed; install concors again, as a whole."
            )
        root = Path(spec.submodule_search_locations[0])
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.append((f"{package}/{path.relative_to(root).as_posix()}", path))
    return sorted(found)


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Return the SHA-256 over names and bytes of all installed files of ours.

    Two parties whose hashes agree run the same code, templates and tables, to the byte. Computed
    once in a process: what is on disk later is not what runs.

    Raises
    ------
    ConfigError
        If one of the packages is not installed.
    """
    whole = hashlib.sha256()
    for name, path in _sources():
        whole.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()
