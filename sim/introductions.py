"""Simulated hospitals that trust each other's keys, as real ones do once their people have met."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from client.secure_identity import own_fingerprint

__all__ = ["introduce"]


def introduce(sites: Sequence[Path], **settings: Any) -> None:
    """Enter every hospital's fingerprint in the ``site.yaml`` of all the others.

    Parameters
    ----------
    sites : sequence of Path
        The hospitals' directories, three or more, named as the hospitals are.
    **settings
        Of `client.secure_settings.SecureSettings`. ``required`` is false by default: the arms that
        train at one hospital are compared with plainly. So is what too few are asked for a sum.
    """
    prints = {site.name: own_fingerprint(site) for site in sites}
    for site in sites:
        path = site / "site.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        peers = {name: text for name, text in prints.items() if name != site.name}
        content["secure_aggregation"] = {
            "required": False,
            "plain_when_few": True,
            **settings,
            "peers": peers,
        }
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
