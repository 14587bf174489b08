"""``__all__`` of every module names what the module has, once (ruff keeps it sorted)."""

import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = (
    "protocol",
    "privacy",
    "deployment",
    "shared_models",
    "strategies",
    "client",
    "server",
    "sim",
)
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in (REPOSITORY / package).rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    public = getattr(module, "__all__", None)
    if public is None:
        return
    assert len(set(public)) == len(public)
    missing = [each for each in public if not hasattr(module, each)]
    assert not missing
