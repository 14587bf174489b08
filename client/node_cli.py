"""``concors-client request, join, start``: a hospital's way into a consortium, and its node."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.membership import coordinator_fingerprint, join, load_welcome, request
from client.sentences import sentences
from deployment.papers import grouped
from protocol.errors import ConfigError

__all__ = ["join_command", "request_command", "start_command"]

console = Console()
SITE = Annotated[Path, typer.Argument(help="Directory with site.yaml.")]


def request_command(
    site_dir: SITE,
    out: Annotated[Path, typer.Option(help="Folder for the request file.")] = Path("."),
) -> None:
    """Make the hospital's node key, and the file with which it asks a coordinator to be admitted.

    Called again, it writes the same key. The private key never leaves the hospital.
    """
    with sentences():
        name, fingerprint, paper = request(site_dir)
        file = out / f"{name}.request.json"
        try:
            file.write_text(paper, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"The request cannot be written ({error.strerror}); give --out a folder that can."
            ) from error
    _say(f"{name}: node key '{grouped(fingerprint)}'")
    _say(f"send {file} to the coordinator, and read out the key's fingerprint on the telephone")


def join_command(
    site_dir: SITE,
    welcome: Annotated[Path, typer.Argument(help="The welcome that the coordinator sent.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Leave another consortium for this one.")
    ] = False,
) -> None:
    """Take up a coordinator's welcome, after which the hospital's node can be started."""
    with sentences():
        document = join(site_dir, welcome, replace=replace)
    _say(f"{document['site']} has joined {document['consortium']} at {document['address']}")
    _say(f"the coordinator's key is '{grouped(coordinator_fingerprint(document))}'")
    _say("compare it with the coordinator on the telephone before you start the node")


def start_command(site_dir: SITE) -> None:
    """Run the hospital's node, in the foreground, until it is ended (Ctrl-C, SIGTERM).

    It calls the server and needs no open port. A service manager keeps it running over restarts of
    the machine.
    """
    with sentences():
        load_welcome(site_dir)
    # In the place of this process, so that what the other commands need is not held for weeks.
    node = [sys.executable, "-P", "-m", "client.node.supervisor", str(site_dir.resolve())]
    os.execv(node[0], node)  # noqa: S606 - our own program, and no shell


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
