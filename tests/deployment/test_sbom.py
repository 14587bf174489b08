"""The bill of materials: valid by the public schema, complete, the same each time."""

import json
import re
import sys
from importlib.metadata import distributions

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deployment.sbom import sbom_text
from protocol.code import code_hash


@pytest.fixture(scope="module")
def text() -> str:
    return sbom_text()


def test_it_is_valid_by_the_public_schema(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = json.loads(text)
    broken["components"][0]["type"] = "miracle"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_it_names_every_distribution_with_its_version(text: str) -> None:
    document = json.loads(text)
    named = {part["name"]: part["version"] for part in document["components"]}
    for each in distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        if name != "concors":
            assert named[name] == each.version
    assert named["CPython"] == sys.version.split()[0]
    ours = document["metadata"]["component"]
    assert ours["version"].endswith(code_hash()[:16])


def test_it_says_what_needs_what(text: str) -> None:
    needs = {d["ref"]: d.get("dependsOn", []) for d in json.loads(text)["dependencies"]}
    ours = {ref.partition("@")[0] for ref in needs["concors"]}
    assert {"python", "pkg:pypi/numpy", "pkg:pypi/flwr", "pkg:pypi/torch"} <= ours
    # An extra that nobody asked for is nothing we need.
    assert "pkg:pypi/pyarrow" not in ours


def test_the_same_environment_gives_the_same_bytes_and_no_place(text: str) -> None:
    sbom_text.cache_clear()
    assert sbom_text() == text
    assert sys.prefix not in text and "timestamp" not in text
