"""A hospital's way into a consortium, its node, and its decisions, as commands."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from client.manifests import Decision, decide, known
from client.membership import coordinator_fingerprint, join, load_welcome, request
from client.sentences import sentences
from deployment.flower import KEPT_MEMORY
from deployment.papers import grouped
from protocol.errors import ConfigError

__all__ = [
    "approve_command",
    "decline_command",
    "join_command",
    "preflight_command",
    "request_command",
    "start_command",
    "studies_command",
]

console = Console()
SITE = Annotated[Path, typer.Argument(help="Directory with site.yaml.")]
HASH = Annotated[
    str, typer.Argument(help="The study's hash as `studies` lists it, or its first 8 digits.")
]


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
    os.execve(node[0], node, {**os.environ, **KEPT_MEMORY})  # noqa: S606 - our own program, and no shell


def studies_command(site_dir: SITE) -> None:
    """List the studies the hospital was asked to take part in, and what was decided of each."""
    with sentences():
        found = known(site_dir)
    title = "Studies; MB a round: to the hospital / from it"
    columns = ("stages", "networks", "strategies", "MB a round", "rounds", "until")
    # What is typed into the next command is never cut short, however narrow the terminal.
    whole = [Column(name, no_wrap=True) for name in ("study", "hash", "decision")]
    table = Table(*whole[:2], *columns, whole[2], title=title)
    for each in found:
        sections = {stage: getattr(each.study, stage) for stage in each.traffic}
        table.add_row(
            each.study.name,
            grouped(each.study_hash[:16]),
            ", ".join(each.study.stages),
            "\n".join(f"{stage}: {part.network.name}" for stage, part in sections.items()),
            "\n".join(f"{stage}: {part.strategy.name}" for stage, part in sections.items()),
            "\n".join(f"{t.down_mb:.1f} / {t.up_mb:.1f}" for t in each.traffic.values()),
            "\n".join(str(t.rounds) for t in each.traffic.values()),
            each.expires[:10],
            {"approved": "[green]", "declined": "[red]"}.get(each.decision, "[yellow]")
            + each.decision,
        )
    console.print(table)


def approve_command(site_dir: SITE, study_hash: HASH) -> None:
    """Let a study run at this hospital, under its policy."""
    _decide(site_dir, study_hash, "approved")


def decline_command(site_dir: SITE, study_hash: HASH) -> None:
    """Keep a study from running at this hospital, also one that was approved before."""
    _decide(site_dir, study_hash, "declined")


def _decide(site_dir: Path, study_hash: str, decision: Decision) -> None:
    with sentences():
        chosen = decide(site_dir, study_hash, decision)
    _say(f"{chosen.study.name} ({grouped(chosen.study_hash)}) is {decision}")


def preflight_command(site_dir: SITE) -> None:
    """Look at everything the node needs, and say what to mend. Exit code 0 only if all is right."""
    from client.node.preflight import preflight

    good = True
    for line in preflight(site_dir):
        good = good and line.good
        told = "[green]OK[/]  " if line.good else "[bold red]MEND[/]"
        console.print(f"{told} {line.what}: {line.found}", soft_wrap=True, highlight=False)
        if line.mend:
            console.print(f"     {line.mend}", soft_wrap=True, highlight=False)
    if not good:
        raise typer.Exit(1)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
