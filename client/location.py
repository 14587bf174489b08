"""Where this client's hospital lies on its own disk: said by the hospital, never by a message."""

import os
from pathlib import Path

from flwr.app import Context

from protocol.errors import ConfigError

__all__ = ["site_directory"]


def site_directory(context: Context) -> Path:
    """Return the hospital's directory.

    A SuperNode names it in its own start-up settings (``--node-config 'site="/data/site"'``). Under
    Flower's simulation engine, which numbers its nodes, it is entry ``partition-id`` of the
    environment variable ``CONCORS_SITES``.

    Raises
    ------
    ConfigError
        If neither is set, or the directory has no ``site.yaml``.
    """
    named = context.node_config.get("site")
    if named is None:
        listed = [part for part in os.environ.get("CONCORS_SITES", "").split(os.pathsep) if part]
        index = int(context.node_config.get("partition-id", -1))
        if not 0 <= index < len(listed):
            raise ConfigError(
                "This client was not told which hospital it is; start the SuperNode with "
                "--node-config 'site=\"DIRECTORY\"'."
            )
        named = listed[index]
    directory = Path(str(named)).resolve()
    if not (directory / "site.yaml").is_file():
        raise ConfigError(
            "The client's site directory has no site.yaml; check the 'site' setting of this node."
        )
    return directory
