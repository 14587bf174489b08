"""Parts: what is assembled is what was taken apart, or it is refused."""

from collections.abc import Callable

import pytest
from flwr.app import Message, RecordDict

from protocol.errors import PayloadError
from protocol.parts import assemble, parts_of

Make = Callable[..., RecordDict]


def test_message_passes_as_parts_and_keeps_its_id(some_records: Make) -> None:
    message = Message(some_records(size=3_000_000), 7, "train.segment")
    message.metadata.__dict__["_message_id"] = message.object_id
    parts = list(parts_of(message))
    assert len(parts) > 4  # three chunks of the array among them
    again = assemble(parts)
    assert again.metadata.message_id == message.metadata.message_id
    assert again.content.object_id == message.content.object_id


@pytest.mark.parametrize("harm", ["missing", "altered", "foreign", "none", "long"])
def test_parts_that_make_no_message_are_refused(harm: str, some_records: Make) -> None:
    parts = list(parts_of(some_records()))
    limit = 10**6
    if harm == "missing":
        parts = parts[1:]
    elif harm == "altered":
        parts[0] = parts[0][:-1] + bytes([parts[0][-1] ^ 1])
    elif harm == "foreign":
        parts[-1] = b"os.system('true')"
    elif harm == "none":
        parts = []
    else:
        limit = 100
    with pytest.raises(PayloadError):
        assemble(parts, limit)


def test_too_little_memory_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch, some_records: Make
) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    parts = list(parts_of(some_records()))
    monkeypatch.setattr("protocol.parts.inflate_object_from_contents", none_left)
    with pytest.raises(MemoryError):
        assemble(parts)
