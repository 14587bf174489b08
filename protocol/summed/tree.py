"""Statistics by name, as an answer holds them, and the leaves of that tree in one order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from protocol.stats.sums import Sums, require

__all__ = ["Path", "Tree", "at", "leaves", "with_leaves"]

Tree = Mapping[str, Any]
"""By name a `Sums` or a further tree; the entries of a list are named by their places."""
Path = tuple[str, ...]


def leaves(tree: Tree, above: Path = ()) -> Iterator[tuple[Path, Sums]]:
    """Yield every statistic with the names that lead to it, in the order of these."""
    for name in sorted(tree):
        value = tree[name]
        if isinstance(value, Sums):
            yield (*above, name), value
        else:
            yield from leaves(value, (*above, name))


def with_leaves(tree: Tree, new: Sequence[Sums]) -> dict[str, Any]:
    """Return the tree with other statistics, given in the order of `leaves`."""
    remaining = iter(new)

    def rebuilt(part: Tree) -> dict[str, Any]:
        return {
            name: next(remaining) if isinstance(part[name], Sums) else rebuilt(part[name])
            for name in sorted(part)
        }

    return rebuilt(tree)


def at(document: Any, path: Path) -> Any:
    """Return what a document holds at a place; None where it holds nothing there.

    Raises
    ------
    PayloadError
        If the way there is barred by something that has no parts.
    """
    for name in path:
        if isinstance(document, list):
            document = dict(zip(map(str, range(len(document))), document, strict=True))
        if document is None:
            return None
        require(isinstance(document, dict), f"An answer has no parts where '{name}' is expected.")
        document = document.get(name)
    return document
