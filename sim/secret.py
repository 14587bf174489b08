"""The pseudonym key of a simulated hospital: a function of its name, and no secret at all.

Keys decide the order of patients and so the folds; with a drawn key no simulation would repeat.
A real hospital's client draws its own key and nothing here is ever used for one.
"""

import hashlib
from pathlib import Path

__all__ = ["write_public_secret"]


def write_public_secret(site: Path, seed: int = 0) -> None:
    """Write ``site.secret`` of a simulated hospital, unless it has one."""
    path = site / "site.secret"
    if not path.exists():
        path.write_text(hashlib.sha256(f"simulated/{seed}/{site.name}".encode()).hexdigest())
        path.chmod(0o600)
