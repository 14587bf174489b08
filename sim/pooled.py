"""All hospitals' data in one archive: what federated training is measured against."""

from collections.abc import Sequence
from pathlib import Path

import yaml

__all__ = ["make_pooled"]


def make_pooled(members: Sequence[Path], out: Path, name: str = "pooled", threads: int = 1) -> Path:
    """Write the site folder of a hospital that holds the members' data, and return it."""
    site = out / name
    site.mkdir(parents=True, exist_ok=True)
    settings = {
        "name": name,
        "members": [str(member.resolve()) for member in members],
        "threads": threads,
    }
    (site / "site.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return site
