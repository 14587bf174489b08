"""What one request to all says to one hospital alone; its arrays are not copied."""

from typing import Any

from flwr.app import ConfigRecord, RecordDict

from protocol.documents import decode, encode

__all__ = ["with_control_round", "with_secure"]


def with_control_round(records: RecordDict, control_round: int) -> RecordDict:
    """Return a train request to another hospital: the same arrays, uncopied, and its own round.

    Parameters
    ----------
    records : RecordDict
        The content of a train request that carries a control variate.
    """
    document = decode(str(records["document"]["json"]), "A train request")
    text = encode(document | {"control_round": control_round}, "The document of a train request")
    return RecordDict({**records, "document": ConfigRecord({"json": text})})


def with_secure(records: RecordDict, secure: dict[str, Any]) -> RecordDict:
    """Return a train request or question that is to be answered by a masked vector.

    Parameters
    ----------
    records : RecordDict
        The content of the plain one; its arrays are not copied.
    secure : dict
        `protocol.secure.RoundCall.to_dict`, which goes into ``agreed["secure"]``.
    """
    document = decode(str(records["document"]["json"]), "A request")
    document["agreed"] = {**document["agreed"], "secure": secure}
    text = encode(document, "The document of a request")
    return RecordDict({**records, "document": ConfigRecord({"json": text})})
