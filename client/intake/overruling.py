"""What a person at the hospital decided about a series."""

from dataclasses import dataclass

__all__ = ["Override", "overrule"]


@dataclass(frozen=True)
class Override:
    """A person's word on a series, or on one part of it; ``None`` leaves the rule's.

    Attributes
    ----------
    ignore : bool
        The series is not used for anything.
    """

    sequence: str | None = None
    view: str | None = None
    ignore: bool = False


def overrule(override: Override, sequence: str, view: str) -> tuple[str, str]:
    """Return sequence and view after a person's word."""
    return override.sequence or sequence, override.view or view
