"""How many bytes went down to the hospitals and came up from them, counted where they pass.

Counted are the contents: arrays with their headers, and documents. Flower's own envelope, ids and
TLS come on top, a few kilobytes a message.
"""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from protocol.custody import HEADS
from server.passing import PassingGrid

__all__ = ["Metered", "content_bytes"]


def content_bytes(records: RecordDict) -> int:
    """Return the bytes of a message's content: its arrays, and the texts of its documents.

    The heads of a hospital's logs, which a reply brings too, are not counted: they are another few
    bytes each time, and a run that is repeated is to tell the same.
    """
    total = 0
    for record in records.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        elif isinstance(record, ConfigRecord):
            texts = (v for key, v in record.items() if key != HEADS)
            total += sum(len(text) for text in texts if isinstance(text, str | bytes))
    return total


class Metered(PassingGrid):
    """A grid that passes everything on to another one and counts.

    Every request counts once for each hospital it goes to, also where Flower's server is handed
    its arrays once for all.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._down, self._up = 0, 0

    def taken(self) -> tuple[int, int]:
        """Return the bytes down and up since this was last asked."""
        counts, self._down, self._up = (self._down, self._up), 0, 0
        return counts

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on, and count what goes down."""
        messages = list(messages)
        self._down += sum(content_bytes(message.content) for message in messages)
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on, and count what comes up."""
        return self._counted(self._grid.pull_messages(message_ids))

    def _counted(self, messages: Iterable[Message]) -> list[Message]:
        replies = list(messages)
        self._up += sum(content_bytes(m.content) for m in replies if m.has_content())
        return replies
