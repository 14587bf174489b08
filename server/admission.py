"""Which hospitals belong to a consortium: admitted by their request, revoked by their name."""

import re
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from deployment.papers import fingerprint_of, make_welcome, read_request
from deployment.private_files import write_atomic
from protocol.documents import check_keys, decode, encode
from protocol.errors import ConfigError, PaperError, PayloadError
from server.consortium import NAME, Consortium

__all__ = ["Hospital", "admit", "hospitals", "revoke"]


@dataclass(frozen=True)
class Hospital:
    """One file in ``hospitals/``.

    Attributes
    ----------
    name : str
        As in studies and in the hospital's own ``site.yaml``.
    node_key : str
        Public key of its node, PEM.
    fingerprint : str
        SHA-256 of that key.
    admitted : str
        When, ISO 8601.
    revoked : str
        When, or empty.
    former : list of str
        Fingerprints of keys it had before; they are never admitted again.
    """

    name: str
    node_key: str
    fingerprint: str
    admitted: str
    revoked: str = ""
    former: tuple[str, ...] = ()

    @property
    def is_member(self) -> bool:
        """Whether its node may connect."""
        return not self.revoked


def hospitals(consortium: Consortium) -> dict[str, Hospital]:
    """Return every hospital that was ever admitted, by name, sorted.

    Raises
    ------
    ConfigError
        If a file is not one that `admit` wrote.
    """
    return {path.stem: _read(path) for path in sorted(consortium.hospitals.glob("*.json"))}


def admit(
    consortium: Consortium, request: str, *, replace_key: bool, now: datetime
) -> tuple[Hospital, str]:
    """Admit the hospital of a request, and write its welcome.

    Admitting is the coordinator's word that this key is this hospital's, so its fingerprint is to
    be compared with the hospital on another way than the one by which the request came.

    Parameters
    ----------
    request : str
        Text of the request.
    replace_key : bool
        Whether a hospital that has another key gets this one instead.

    Returns
    -------
    tuple of Hospital and str
        The hospital, and the text of the welcome.

    Raises
    ------
    PaperError
        If the request is not whole.
    ConfigError
        If the key is another hospital's or was revoked, or the name has another key.
    """
    document = read_request(request)
    name, pem = document["site"], document["node_key"]
    if re.fullmatch(NAME, name) is None:
        raise PaperError(
            "The request's hospital name is not 1 to 64 letters, digits, - or _; have the "
            "hospital name itself otherwise in its site.yaml and make a new request."
        )
    fingerprint, known = fingerprint_of(pem), hospitals(consortium)
    _check_key(known, name, fingerprint)
    old = known.get(name)
    former = old.former if old is not None else ()
    if old is not None and old.fingerprint != fingerprint:
        if old.is_member and not replace_key:
            raise ConfigError(
                f"{name} was admitted with another key on {old.admitted[:10]}; if it has made a "
                "new one and says so itself, admit it with --replace."
            )
        former = (*former, old.fingerprint)
    # As it was signed and not as it came: other white space would be another key to Flower.
    hospital = Hospital(name, pem, fingerprint, now.isoformat(), former=former)
    if old is not None and old.fingerprint == fingerprint:
        hospital = old
    _write(consortium, hospital)
    consortium.note("admit", hospital=name, fingerprint=fingerprint, replaced=len(former))
    welcome = make_welcome(
        consortium.run_key(),
        consortium=consortium.settings.name,
        site=name,
        address=consortium.settings.address,
        authority=consortium.authority.read_text(),
        node_fingerprint=fingerprint,
        now=now,
    )
    return hospital, welcome


def revoke(consortium: Consortium, name: str, *, now: datetime) -> Hospital:
    """Exclude a hospital; its key is never admitted again.

    Raises
    ------
    ConfigError
        If there is no such member.
    """
    hospital = hospitals(consortium).get(name)
    if hospital is None or not hospital.is_member:
        members = [each.name for each in hospitals(consortium).values() if each.is_member]
        raise ConfigError(f"{name} is no member; the members are {', '.join(members) or 'none'}.")
    hospital = replace(hospital, revoked=now.isoformat())
    _write(consortium, hospital)
    consortium.note("revoke", hospital=name, fingerprint=hospital.fingerprint)
    return hospital


def _check_key(known: dict[str, Hospital], name: str, fingerprint: str) -> None:
    for each in known.values():
        withdrawn = fingerprint in each.former
        if withdrawn or (each.fingerprint == fingerprint and not each.is_member):
            raise ConfigError(
                f"This key was withdrawn from {each.name}; have the hospital make a new key and a "
                "new request."
            )
        if each.fingerprint == fingerprint and each.name != name:
            raise ConfigError(
                f"This key is {each.name}'s; every hospital makes its own, so have this one make a "
                "new request."
            )


def _write(consortium: Consortium, hospital: Hospital) -> None:
    text = encode(asdict(hospital), "A hospital")
    write_atomic(consortium.hospitals / f"{hospital.name}.json", text.encode() + b"\n")


def _read(path: Path) -> Hospital:
    where = f"hospitals/{path.name}"
    try:
        document = decode(path.read_text(encoding="utf-8"), where)
        check_keys(document, frozenset(Hospital.__dataclass_fields__), where)
    except (PayloadError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where} cannot be read; restore it, or admit the hospital again."
        ) from error
    document["former"] = tuple(document["former"])
    hospital = Hospital(**document)
    if hospital.name != path.stem or fingerprint_of(hospital.node_key) != hospital.fingerprint:
        raise ConfigError(f"{where} was altered; restore it, or admit the hospital again.")
    return hospital
