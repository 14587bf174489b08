"""What is installed, as a software bill of materials: CycloneDX 1.6 in JSON.

https://cyclonedx.org/docs/1.6/json/. It names every distribution of this environment with its
version, licence and package URL, and the interpreter; nothing of the machine, its user or its
paths. The same environment gives the same bytes: the serial number follows from the content, and
there is no time in it.
"""

import json
import platform
import uuid
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from protocol.code import code_hash

__all__ = ["sbom_text", "write_sbom"]

OURS = "concors"
LONGEST_LICENCE = 100


def _licences(meta: Any) -> list[License]:
    """Return what a distribution says of its licence in few words, if it does."""
    expression = meta.get("License-Expression")
    if expression:
        return [LicenseExpression(str(expression))]
    classified = [
        text.rpartition(" :: ")[2]
        for text in meta.get_all("Classifier") or []
        if text.startswith("License :: ") and not text.endswith("OSI Approved")
    ]
    text = classified[0] if classified else str(meta.get("License") or "").strip()
    # Some put the whole text of their licence here.
    short = 0 < len(text) <= LONGEST_LICENCE and "\n" not in text
    return [DisjunctiveLicense(name=text)] if short else []


def _component(name: str, meta: Any) -> Component:
    url = PackageURL("pypi", None, name, meta["Version"])
    return Component(
        name=name,
        version=meta["Version"],
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
        licenses=_licences(meta),
    )


def _needs(meta: Any) -> Iterator[str]:
    """Give the names of what a distribution needs here, without its extras."""
    for text in meta.get_all("Requires-Dist") or []:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield canonicalize_name(needed.name)


def _bom() -> Bom:
    # Read once: every look at `Distribution.metadata` parses the file again.
    read = [each.metadata for each in distributions()]
    found: dict[str, Any] = {canonicalize_name(meta["Name"]): meta for meta in read}
    parts = {name: _component(name, found[name]) for name in sorted(found)}
    ours = Component(
        name=OURS,
        # What runs, to the byte: `protocol.code`.
        version=f"{version(OURS)}+{code_hash()[:16]}",
        type=ComponentType.APPLICATION,
        bom_ref=OURS,
    )
    parts[OURS] = ours
    python = Component(
        name=platform.python_implementation(),
        version=platform.python_version(),
        type=ComponentType.PLATFORM,
        bom_ref="python",
    )
    bom = Bom(components=[python, *(part for name, part in parts.items() if name != OURS)])
    bom.metadata.component = ours
    bom.register_dependency(python)
    for name, part in parts.items():
        needed = [parts[other] for other in _needs(found[name]) if other in parts]
        bom.register_dependency(part, [*needed, *([python] if part is ours else [])])
    return bom


@lru_cache(maxsize=1)
def sbom_text() -> str:
    """Return the bill of materials of this environment as JSON."""
    document = json.loads(JsonV1Dot6(_bom()).output_as_string())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    text = json.dumps(document, indent=1, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, text)}"
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def write_sbom(path: Path) -> Path:
    """Write the bill of materials and return where."""
    path.write_text(sbom_text(), encoding="utf-8")
    return path
