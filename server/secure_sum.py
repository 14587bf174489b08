"""The centre's half of a secure sum: pass sealed shares on, add, and open the total.

A session (`server.secure_session`) is one exchange, a sum two more. What comes of it is the total
over the hospitals that sent a vector; the centre holds one total and one reply at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from flwr.app import RecordDict

from privacy.secure_sum.quantise import WordArray
from privacy.secure_sum.rounds import open_sum
from protocol.config import Study
from protocol.errors import PayloadError, PrivacyError, QuorumError
from protocol.payload import Answer, Question, Refusal
from protocol.secure import MaskedReply, Opening, SessionCall, SharesByOwner
from server.asking import ask
from server.centre import DECLINED
from server.hospitals import require_quorum
from server.secure_session import SecureSession, read_with, reasons

__all__ = ["SecureTotal", "secure_sum"]


@dataclass
class SecureTotal:
    """A sum of hospitals' vectors.

    Attributes
    ----------
    words : array
        Modulo the word; masked until it is opened.
    active : list of str
        Whose vectors are in it, sorted.
    refused : dict
        Who sent none, and why.
    """

    words: WordArray
    active: list[str] = field(default_factory=list)
    refused: dict[str, Refusal] = field(default_factory=dict)


def secure_sum(
    session: SecureSession,
    request: RecordDict,
    message_type: str,
    *,
    round_id: str,
    size: int,
    word_bits: Literal[32, 64],
    group: str = "",
    may_decline: bool = False,
) -> SecureTotal:
    """Ask hospitals for their vectors and return the opened sum of those that came.

    Parameters
    ----------
    request : RecordDict
        The same for all, with the round's call in ``agreed["secure"]``.
    round_id : str
        Of that call.
    size : int
        Words of a vector.
    may_decline : bool
        As in `server.centre.Centre.answers`: who declines for its privacy policy is not missing.

    Raises
    ------
    QuorumError
        If fewer than the threshold or the quorum sent a vector, or help to open the sum.
    PrivacyError
        If the shares that came do not fit together, or fewer than the threshold are left only
        because the others decline.
    """
    study, call = session.study, session.call
    total = SecureTotal(np.zeros(size, f"uint{word_bits}"))
    deposits: dict[str, dict[str, bytes]] = {}
    commitments: dict[str, dict[str, str]] = {}
    replies = ask(
        session.grid,
        session.nodes,
        request,
        message_type,
        study.rounds,
        group=group,
        clock=session.clock,
    )
    del request
    for site, outcome in replies:
        reply = read_with(
            outcome, partial(_masked, site=site, call=call, size=size, bits=word_bits)
        )
        del outcome
        if isinstance(reply, Refusal):
            total.refused[site] = reply
            continue
        total.words += reply.words
        total.active.append(site)
        deposits[site], commitments[site] = reply.deposits, reply.commitments
        del reply
    what = f"The secure sum of {message_type}{f' ({group})' if group else ''}"
    missing = total.refused | session.refused
    if may_decline:
        missing = {site: said for site, said in missing.items() if said.code not in DECLINED}
    if may_decline and not missing and len(total.active) < call.threshold:
        raise PrivacyError(
            f"{what}: {len(total.active)} hospitals answer and the others' privacy policies forbid "
            f"it, where {call.threshold} or more must answer ({reasons(total.refused)}); the "
            "study goes on without."
        )
    _require(total.active, missing, call.threshold, study, what)
    told = dict(_told(session, round_id, total, deposits, what))
    open_sum(total.words, call.cohort, call.threshold, total.active, told, commitments)
    return total


def _masked(
    records: RecordDict, site: str, call: SessionCall, size: int, bits: Literal[32, 64]
) -> MaskedReply:
    where = f"The masked reply of {site}"
    reply = MaskedReply.from_records(records, where, size, bits)
    named = {"", *(peer for peer in call.cohort if peer != site)}
    if set(reply.deposits) != set(call.cohort) or set(reply.commitments) != named:
        raise PayloadError(f"{where} holds no share for each hospital; install one version.")
    return reply


def _require(
    valid: Sequence[str], refused: Mapping[str, Refusal], threshold: int, study: Study, what: str
) -> None:
    require_quorum(valid, refused, study.rounds.quorum, what)
    if len(valid) < threshold:
        raise QuorumError(
            f"{what}: {len(valid)} hospitals are left, expected {threshold} or more "
            f"({reasons(refused)}); mend this and resume."
        )


def _told(
    session: SecureSession,
    round_id: str,
    total: SecureTotal,
    deposits: Mapping[str, Mapping[str, bytes]],
    what: str,
) -> Iterator[tuple[str, SharesByOwner]]:
    """Ask the active hospitals for the shares that open the sum; enough of them must answer."""
    call, study = session.call, session.study
    active = tuple(total.active)
    dropped = tuple(site for site in call.cohort if site not in active)

    def opening(site: str) -> RecordDict:
        sealed = {owner: deposits[owner][site] for owner in active}
        asked = Opening(call.session, round_id, active, dropped, sealed)
        return Question(study, "secure_tell", {"opening": asked.to_dict()}).to_records()

    helpers, refused = 0, dict[str, Refusal]()
    nodes = {site: session.nodes[site] for site in active}
    for site, outcome in ask(
        session.grid,
        nodes,
        opening,
        "query.secure_tell",
        study.rounds,
        group="open",
        clock=session.clock,
    ):
        shares = read_with(outcome, partial(_shares, site=site))
        if isinstance(shares, Refusal):
            refused[site] = shares
        else:
            helpers += 1
            yield site, shares
    if helpers < call.threshold:
        raise QuorumError(
            f"{what} cannot be opened: {helpers} hospitals told their shares, expected "
            f"{call.threshold} or more ({reasons(refused)}); mend this and resume."
        )


def _shares(records: RecordDict, site: str) -> SharesByOwner:
    where = f"The shares of {site}"
    return Opening.shares_from(Answer.from_records(records, where).document.get("shares"), where)
