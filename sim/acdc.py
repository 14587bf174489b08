"""The public ACDC patients as hospitals of one diagnosis group each.

The data stay where they are (their licence forbids copying them into a project); a hospital here is
a folder with a ``site.yaml`` that points to them.
"""

from pathlib import Path

import yaml

from protocol.errors import ConfigError
from sim.secret import write_public_secret

__all__ = ["ACDC_GROUPS", "make_acdc_hospitals"]

ACDC_GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")


def make_acdc_hospitals(archive: Path, out: Path, threads: int = 2) -> list[Path]:
    """Write one site folder per diagnosis group and return the folders.

    Parameters
    ----------
    archive : Path
        Folder with ``patients.csv`` and ``volumes/``.
    out : Path
        Where the site folders go; existing ones keep their cache.

    Raises
    ------
    ConfigError
        If ``archive`` is not such a folder.
    """
    archive = archive.resolve()
    if not (archive / "patients.csv").is_file():
        raise ConfigError(
            "The ACDC folder holds no patients.csv; set CONCORS_DATA to the folder that holds "
            "'acdc'."
        )
    sites = []
    for group in ACDC_GROUPS:
        site = out / f"acdc-{group}"
        site.mkdir(parents=True, exist_ok=True)
        images = {"format": "acdc", "path": str(archive), "group": group}
        # The patients are public; three held out of a group would otherwise be withheld.
        settings = {"name": site.name, "images": images, "threads": threads, "min_cell": 1}
        (site / "site.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        write_public_secret(site)
        sites.append(site)
    return sites
