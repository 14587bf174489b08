"""``concors-client``: what a hospital's research engineer types."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.data_cli import check_command, export_masks_command, sort_command
from client.node_cli import (
    approve_command,
    decline_command,
    join_command,
    preflight_command,
    request_command,
    start_command,
    studies_command,
)
from client.pacs_cli import fetch_command
from client.privacy_cli import plan_privacy_command, spent_command
from client.record_cli import sbom_command, verify_command
from client.sentences import sentences
from client.site import load_site
from deployment.logs import configure

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="A hospital's side of Concors.",
    pretty_exceptions_enable=False,
)
console = Console()


@app.callback()
def _group() -> None:
    """A hospital's side of Concors."""
    with sentences():
        configure()


@app.command()
def identity(site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")]) -> None:
    """Print the fingerprint that the peers of this hospital enter in their site.yaml.

    The key behind it is made on first use and stays in site.identity, for its owner's eyes only.
    """
    # Here, as it loads Flower, which every other command would wait for.
    from client.secure_identity import own_fingerprint

    with sentences():
        name, fingerprint = load_site(site_dir).name, own_fingerprint(site_dir)
    groups = " ".join(fingerprint[i : i + 8] for i in range(0, len(fingerprint), 8))
    console.print(f"{name}: '{groups}'", soft_wrap=True, highlight=False)


app.command("check")(check_command)
app.command("sort")(sort_command)
app.command("export-masks")(export_masks_command)
app.command("request")(request_command)
app.command("join")(join_command)
app.command("preflight")(preflight_command)
app.command("start")(start_command)
app.command("studies")(studies_command)
app.command("approve")(approve_command)
app.command("decline")(decline_command)
app.command("fetch")(fetch_command)
app.command("spent")(spent_command)
app.command("plan-privacy")(plan_privacy_command)
app.command("verify")(verify_command)
app.command("sbom")(sbom_command)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
