"""What is said between the centre and a hospital in a secure sum; see `privacy.secure_sum`.

A session is opened by one question (`SessionCall`, answered by an `Advert`). A request whose answer
is to be a masked vector carries a `RoundCall` in ``agreed["secure"]`` and is answered by a
`MaskedReply`; a further question, one a hospital (`Opening`), asks for shares.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from protocol.documents import check_keys, decode, encode, need
from protocol.records import from_array_record, to_array_record

__all__ = ["Advert", "MaskedReply", "Opening", "RoundCall", "SessionCall", "SharesByOwner"]

KEY, SIGNATURE, HASH, TOKEN = (re.compile(f"[0-9a-f]{{{n}}}") for n in (64, 128, 64, 32))
SITE = re.compile(r"[A-Za-z0-9_-]{1,64}")
PURPOSE = re.compile(r"[a-z_.]{1,64}")
SEALED = re.compile(r"[0-9a-f]{0,65536}")
SHARE = re.compile(r"[0-9a-f]{32}")
MAX_COHORT = 200

# By the hospital that made a seed, then by the seed: "" is its self mask, a name that of a pair.
SharesByOwner = dict[str, dict[str, str]]


def _text(value: Any, pattern: re.Pattern[str], where: str, what: str) -> str:
    need(isinstance(value, str) and bool(pattern.fullmatch(value)), where, f"{what} is malformed")
    return str(value)


def _names(value: Any, where: str) -> tuple[str, ...]:
    need(isinstance(value, list) and len(value) <= MAX_COHORT, where, "the hospitals are no list")
    return tuple(_text(name, SITE, where, "a hospital's name") for name in value)


def _whole(value: Any, low: int, high: int, where: str, what: str) -> int:
    need(type(value) is int and low <= value <= high, where, f"{what} is out of range")
    return int(value)


def _mapping(value: Any, where: str, what: str) -> dict[str, Any]:
    need(isinstance(value, dict) and len(value) <= MAX_COHORT, where, f"{what} are no object")
    for name in value:
        need(name == "" or bool(SITE.fullmatch(name)), where, f"{what} have a malformed name")
    return dict(value)


@dataclass(frozen=True)
class SessionCall:
    """Make a key of agreement for this session.

    Attributes
    ----------
    session : str
        32 hexadecimal digits.
    purpose : str
        Message type of what will be summed, e.g. ``"train.prognosis"``.
    first_round : int
        From 1.
    cohort : tuple of str
        Who takes part, sorted.
    threshold : int
        Who must still be there when a sum is opened.
    """

    session: str
    purpose: str
    first_round: int
    cohort: tuple[str, ...]
    threshold: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"cohort": list(self.cohort)}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
        """
        need(isinstance(values, dict), where, "the session is no object")
        fields = frozenset({"session", "purpose", "first_round", "cohort", "threshold"})
        check_keys(values, fields, where)
        return cls(
            _text(values["session"], TOKEN, where, "the session"),
            _text(values["purpose"], PURPOSE, where, "the purpose"),
            _whole(values["first_round"], 1, 10**6, where, "the first round"),
            _names(values["cohort"], where),
            _whole(values["threshold"], 1, MAX_COHORT, where, "the threshold"),
        )


@dataclass(frozen=True)
class Advert:
    """A hospital's key of agreement for one session.

    Attributes
    ----------
    site : str
    agreement : bytes
        X25519 public key, 32 bytes.
    identity : bytes
        Ed25519 public key, 32 bytes.
    signature : bytes
        By ``identity`` over all of it and the session, 64 bytes.
    """

    site: str
    agreement: bytes
    identity: bytes
    signature: bytes

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        keys = {name: getattr(self, name).hex() for name in ("agreement", "identity", "signature")}
        return {"site": self.site, **keys}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
        """
        need(isinstance(values, dict), where, "the key is no object")
        check_keys(values, frozenset({"site", "agreement", "identity", "signature"}), where)
        return cls(
            _text(values["site"], SITE, where, "the hospital's name"),
            bytes.fromhex(_text(values["agreement"], KEY, where, "the key of agreement")),
            bytes.fromhex(_text(values["identity"], KEY, where, "the identity")),
            bytes.fromhex(_text(values["signature"], SIGNATURE, where, "the signature")),
        )


@dataclass(frozen=True)
class RoundCall:
    """Answer this request by a masked vector.

    Attributes
    ----------
    call : SessionCall
    round_id : str
        32 hexadecimal digits; asked again, a round has another.
    adverts : tuple of Advert
        Of the whole cohort, in its order.
    weight_cap : float
        What weights are divided by before they multiply an update; 1 where nothing is weighed.
    clip_norm : float or None
        Bound of an update's norm, where the study adds noise.
    """

    call: SessionCall
    round_id: str
    adverts: tuple[Advert, ...]
    weight_cap: float = 1.0
    clip_norm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "call": self.call.to_dict(),
            "round_id": self.round_id,
            "adverts": [advert.to_dict() for advert in self.adverts],
            "weight_cap": self.weight_cap,
            "clip_norm": self.clip_norm,
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
        """
        need(isinstance(values, dict), where, "the secure round is no object")
        fields = frozenset({"call", "round_id", "adverts", "weight_cap", "clip_norm"})
        check_keys(values, fields, where)
        adverts, numbers = values["adverts"], (values["weight_cap"], values["clip_norm"])
        good = isinstance(adverts, list) and len(adverts) <= MAX_COHORT
        need(good, where, "the keys are no list")
        for number in numbers:
            fine = number is None or (type(number) in (int, float) and number > 0)
            need(fine, where, "a bound is not above 0")
        need(numbers[0] is not None, where, "the cap of the weights is missing")
        return cls(
            SessionCall.from_dict(values["call"], where),
            _text(values["round_id"], TOKEN, where, "the round's id"),
            tuple(Advert.from_dict(each, where) for each in adverts),
            float(numbers[0]),
            None if numbers[1] is None else float(numbers[1]),
        )


@dataclass(frozen=True, eq=False)
class MaskedReply:
    """A hospital's masked vector, and its seeds in shares that only its peers can open.

    Attributes
    ----------
    words : array of uint32 or uint64
        Uniform to whoever lacks a seed.
    deposits : dict
        By the hospital that can open it, sealed shares.
    commitments : dict
        Hash of each seed, by the peer it is shared with; ``""`` is the self mask's.
    """

    words: np.ndarray
    deposits: dict[str, bytes]
    commitments: dict[str, str]

    def to_records(self) -> RecordDict:
        """Return the message's content."""
        document = {
            "kind": "masked reply",
            "deposits": {site: sealed.hex() for site, sealed in self.deposits.items()},
            "commitments": self.commitments,
        }
        text = encode(document, "The document of a masked reply")
        records = RecordDict({"document": ConfigRecord({"json": text})})
        signed = self.words.view(f"int{8 * self.words.dtype.itemsize}")
        records["arrays"] = to_array_record({"masked": signed})
        return records

    @classmethod
    def from_records(
        cls, records: RecordDict, where: str, size: int, word_bits: Literal[32, 64]
    ) -> Self:
        """Read a received reply of ``size`` words.

        Raises
        ------
        PayloadError
            If keys, types or sizes are not what this version sends.
        """
        config, arrays = records.get("document"), records.get("arrays")
        good = isinstance(config, ConfigRecord) and isinstance(arrays, ArrayRecord)
        need(good and records.keys() == {"document", "arrays"}, where, "it is no masked reply")
        text = config.get("json") if isinstance(config, ConfigRecord) else None
        need(isinstance(text, str), where, "it has no JSON text")
        document = decode(str(text), where)
        check_keys(document, frozenset({"kind", "deposits", "commitments"}), where)
        need(document["kind"] == "masked reply", where, "it is of another kind")
        named = from_array_record(arrays, where, size * word_bits // 8 + 4096)
        words = named.get("masked")
        fits = words is not None and words.shape == (size,) and words.dtype == f"int{word_bits}"
        need(fits and len(named) == 1, where, f"the vector is not {size} words of {word_bits} bit")
        deposits = _mapping(document["deposits"], where, "the deposits")
        commitments = _mapping(document["commitments"], where, "the commitments")
        return cls(
            np.asarray(words).view(f"uint{word_bits}"),
            {
                site: bytes.fromhex(_text(sealed, SEALED, where, "a deposit"))
                for site, sealed in deposits.items()
            },
            {
                name: _text(value, HASH, where, "a commitment")
                for name, value in commitments.items()
            },
        )


@dataclass(frozen=True)
class Opening:
    """Help to open the sum of a round.

    Attributes
    ----------
    session, round_id : str
    active, dropped : tuple of str
        Whose vectors are in the sum, and who sent none; together the cohort.
    deposits : dict
        What the active hospitals sealed for the one that is asked.
    """

    session: str
    round_id: str
    active: tuple[str, ...]
    dropped: tuple[str, ...]
    deposits: dict[str, bytes]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "session": self.session,
            "round_id": self.round_id,
            "active": list(self.active),
            "dropped": list(self.dropped),
            "deposits": {site: sealed.hex() for site, sealed in self.deposits.items()},
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        PayloadError
        """
        need(isinstance(values, dict), where, "the opening is no object")
        fields = frozenset({"session", "round_id", "active", "dropped", "deposits"})
        check_keys(values, fields, where)
        deposits = _mapping(values["deposits"], where, "the deposits")
        return cls(
            _text(values["session"], TOKEN, where, "the session"),
            _text(values["round_id"], TOKEN, where, "the round's id"),
            _names(values["active"], where),
            _names(values["dropped"], where),
            {
                site: bytes.fromhex(_text(sealed, SEALED, where, "a deposit"))
                for site, sealed in deposits.items()
            },
        )

    @staticmethod
    def shares_from(values: Any, where: str) -> SharesByOwner:
        """Read the shares in the answer to an opening.

        Raises
        ------
        PayloadError
        """
        shares: SharesByOwner = {}
        for owner, seeds in _mapping(values, where, "the shares").items():
            named = _mapping(seeds, where, "the shares")
            shares[owner] = {
                seed: _text(share, SHARE, where, "a share") for seed, share in named.items()
            }
        return shares
