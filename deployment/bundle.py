"""The bundle that Flower carries to every node: the names of two installed apps, and no code.

What runs at a hospital is what the hospital installed. The bundle is equal for all studies, so its
hash stands for the names and the version alone.
"""

from collections.abc import Sequence
from pathlib import Path

import tomli_w

__all__ = ["write_bundle"]


def write_bundle(
    app_dir: Path,
    keys: Sequence[str] = (),
    *,
    server_app: str = "server.app:app",
    client_app: str = "client.app:app",
) -> Path:
    """Write the bundle's only file, a ``pyproject.toml``, and return its directory.

    Parameters
    ----------
    keys : sequence of str
        What a run may set in its configuration; Flower allows no others. ``""`` says "not given".
    server_app, client_app : str
        ``module:attribute`` of the two apps, importable where they run.
    """
    app_dir.mkdir(parents=True, exist_ok=True)
    project = {
        "project": {"name": "concors-app", "version": "0.1.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "concors",
                    "components": {"serverapp": server_app, "clientapp": client_app},
                    "config": dict.fromkeys(keys, ""),
                }
            }
        },
    }
    (app_dir / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")
    return app_dir
