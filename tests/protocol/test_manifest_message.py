"""The message that carries a manifest: the text comes out as it went in, or not at all."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.documents import MAX_DOCUMENT_BYTES
from protocol.errors import PayloadError
from protocol.manifest_message import pack, unpack


def test_the_text_comes_out_as_it_went_in() -> None:
    text = '{"kind":"manifest", "study" : "caf\\u00e9 é"}\n'
    assert unpack(pack(text), "The request") == text


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"document": ArrayRecord()}),
        RecordDict({"document": ConfigRecord({})}),
        RecordDict({"document": ConfigRecord({"json": 3})}),
        RecordDict({"document": ConfigRecord({"json": "{}", "more": "x"})}),
        RecordDict({"document": ConfigRecord({"json": "{}"}), "arrays": ArrayRecord()}),
    ],
)
def test_anything_else_is_refused(records: RecordDict) -> None:
    with pytest.raises(PayloadError, match=r"^The request has no manifest"):
        unpack(records, "The request")


def test_the_largest_text_passes_and_one_more_character_does_not() -> None:
    assert len(unpack(pack("x" * MAX_DOCUMENT_BYTES), "It")) == MAX_DOCUMENT_BYTES
    with pytest.raises(PayloadError, match="to send has 8388609 characters, more than 8388608"):
        pack("x" * (MAX_DOCUMENT_BYTES + 1))
