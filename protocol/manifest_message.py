"""The manifest of a run on its way to a hospital: the signed paper's text, alone in a message.

The server asks ``query.manifest`` before anything else of a run. The paper travels as the text that
was signed, so that what the hospital checks and keeps is to the byte what the coordinator wrote.
"""

from flwr.app import ConfigRecord, RecordDict

from protocol.documents import MAX_DOCUMENT_BYTES
from protocol.errors import PayloadError

__all__ = ["DECISIONS", "MANIFEST", "pack", "unpack"]

MANIFEST = "query.manifest"
# What a hospital may answer: its engineer has approved the run, has not decided yet, or declined.
DECISIONS = ("approved", "waiting", "declined")


def pack(paper_text: str) -> RecordDict:
    """Return the content of the message that carries a manifest.

    Parameters
    ----------
    paper_text : str
        The signed paper, as it stands in the run's folder.

    Raises
    ------
    PayloadError
        If it exceeds 8 MiB.
    """
    _check_size(paper_text, "The manifest to send")
    return RecordDict({"document": ConfigRecord({"json": paper_text})})


def unpack(records: RecordDict, where: str) -> str:
    """Return the text of the manifest in a message; nothing in it has been checked yet.

    Parameters
    ----------
    where : str
        What the message is, for the sentence.

    Raises
    ------
    PayloadError
        If the message holds anything but one text of at most 8 MiB.
    """
    document = records.get("document")
    if set(records) != {"document"} or not isinstance(document, ConfigRecord):
        raise PayloadError(f"{where} has no manifest alone; both ends must run the same version.")
    text = document.get("json")
    if set(document) != {"json"} or not isinstance(text, str):
        raise PayloadError(f"{where} has no manifest text; both ends must run the same version.")
    _check_size(text, where)
    return text


def _check_size(text: str, where: str) -> None:
    if len(text) > MAX_DOCUMENT_BYTES:
        raise PayloadError(
            f"{where} has {len(text)} characters, more than {MAX_DOCUMENT_BYTES}; send less."
        )
