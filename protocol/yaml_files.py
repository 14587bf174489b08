"""Configuration files: YAML read once at the door, checked whole, refused in one sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.errors import ConfigError

__all__ = ["Frozen", "parse", "read_yaml"]

T = TypeVar("T", bound=BaseModel)

MAX_YAML_BYTES = 256 * 1024


class Frozen(BaseModel):
    """A section of a configuration file: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, by ``yaml.safe_load`` and without aliases.

    Raises
    ------
    ConfigError
        If the file is absent, larger than 256 KiB, not YAML, or uses anchors and aliases (a few
        hundred bytes of aliases can unfold to gigabytes).
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path.name} is larger than 256 KiB; a configuration is not.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read ({error.strerror}); check the path."
        ) from error
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ConfigError(f"{path.name} uses a YAML alias; write the value out instead.")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path.name} is not valid YAML{where}; mend the syntax there."
        ) from error


def _place(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location) or "the top level"


def parse(model: type[T], values: Any, source: str) -> T:
    """Check ``values`` against a configuration class.

    Raises
    ------
    ConfigError
        One sentence naming the first key that is unknown, missing or of the wrong type, and how
        many more there are.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        more = f" (and {len(others)} more)" if others else ""
        if first["type"] == "extra_forbidden":
            *parents, key = first["loc"]
            problem = f"unknown key '{key}' in {_place(parents)}"
        else:
            problem = f"{_place(first['loc'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise ConfigError(
            f"{source}: {problem}{more}; correct the file and start again."
        ) from error
