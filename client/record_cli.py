"""``concors-client verify`` and ``sbom``: does the record hold, and what is installed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.sentences import sentences
from client.site import load_site
from protocol import audit

__all__ = ["sbom_command", "verify_command"]

console = Console()
SiteDir = Annotated[Path, typer.Argument(help="Directory with site.yaml.")]


def verify_command(
    site_dir: SiteDir,
    head: Annotated[
        str | None, typer.Option(help="A hash of the audit log that the centre noted.")
    ] = None,
) -> None:
    """Check that no line of the hospital's audit log and privacy ledger was changed or lost.

    One line for each, OK or the first thing that is wrong; exit code 1 if anything is.
    """
    # Here, as it loads Flower, which every other command would wait for.
    from client.verification import verify_site

    with sentences():
        load_site(site_dir)
        checks = list(verify_site(site_dir, head))
    for check in checks:
        console.print(str(check), soft_wrap=True, highlight=False, markup=False)
    if not all(check.good for check in checks):
        raise typer.Exit(1)


def sbom_command(
    site_dir: SiteDir,
    out: Annotated[
        Path | None, typer.Option(help="File to write; .concors/sbom.json if left out.")
    ] = None,
) -> None:
    """Write what is installed here as a CycloneDX bill of materials, and note its hash."""
    import hashlib

    from client.recording import audit_log
    from deployment.sbom import write_sbom

    with sentences():
        load_site(site_dir)
        (site_dir / ".concors").mkdir(exist_ok=True)
        path = write_sbom(out or site_dir / ".concors" / "sbom.json")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        audit.append(audit_log(site_dir), "sbom", {"sha256": digest})
    console.print(f"bill of materials: {path}", soft_wrap=True)
    console.print(f"SHA-256: {digest}", soft_wrap=True, highlight=False)
