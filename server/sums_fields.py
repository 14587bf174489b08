"""How mergeable sums stand in ``results.json``: checked when read, plain lists when written."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

from protocol.errors import PayloadError
from protocol.stats import Sums

__all__ = ["ENCODE", "Frozen", "decoder"]


class Frozen(BaseModel):
    """A part of the results: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def decoder(kind: type[Sums]) -> Callable[[Any], Any]:
    """Return pydantic's validator of a field that holds one kind of sums."""

    def decode(value: Any) -> Any:
        if isinstance(value, dict):
            try:
                return kind.from_dict(value)
            except PayloadError as error:
                raise ValueError(error.sentence) from error
        return value

    return decode


ENCODE = PlainSerializer(lambda sums: sums.to_dict())
"""Writes sums as `Sums.to_dict` gives them."""
