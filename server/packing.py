"""Messages in parcels, on the way through Flower's server (see `protocol.parcels`)."""

from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

from protocol.errors import PayloadError
from protocol.names import is_packed
from protocol.parcels import pack, unpack
from server.passing import PassingGrid

__all__ = ["PackedGrid", "packing"]


def packing(grid: Grid) -> Grid:
    """Return a grid that packs if the given one sends over a network."""
    return PackedGrid(grid) if isinstance(grid, HttpGrid) else grid


class PackedGrid(PassingGrid):
    """Packs what goes down and unpacks what comes up."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pack and push; what several hospitals are sent alike is packed, and sent, once."""
        messages = list(messages)
        packed: dict[int, RecordDict] = {}
        parcels = []
        for message in messages:
            content = message.content
            if id(content) not in packed:
                packed[id(content)] = pack(content)
            metadata = message.metadata
            parcels.append(
                Message(
                    packed[id(content)],
                    metadata.dst_node_id,
                    metadata.message_type,
                    ttl=metadata.ttl,
                    group_id=metadata.group_id,
                )
            )
        return self._grid.push_messages(parcels)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull and unpack; what cannot be unpacked is left for whoever reads it to refuse."""
        return [_unpacked(message) for message in self._grid.pull_messages(message_ids)]


def _unpacked(message: Message) -> Message:
    if message.has_content() and is_packed(message.content):
        try:
            message.content = unpack(message.content)
        except PayloadError:
            message.content = RecordDict()
    return message
