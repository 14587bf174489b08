"""What a hospital must remember between two messages of a secure sum, on its own disk.

Every message may be a new process, so the key of a session and what was done in it stand in
``.concors/secure/STUDY/SESSION.json``, readable by the owner only, written whole and forced to disk
before anything that depends on it leaves. Three things must not happen twice:

- one round masked twice: two vectors under one mask differ by the difference of the vectors;
- one round opened for two stories of who dropped out;
- one question opened for two sets of hospitals: the difference of the sums would be a hospital's.
  A round that was lost may be asked again, under another id, and is opened for the same hospitals
  only; where answers carry noise, not at all. These stand in ``opened.json`` and outlive the
  sessions.
"""

import contextlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from protocol.errors import DataError, PrivacyError

__all__ = ["Opened", "Session", "forget_others", "load_session", "save_session"]


@dataclass(frozen=True)
class Session:
    """A session as this hospital knows it.

    Attributes
    ----------
    call : dict
        `protocol.secure.SessionCall` as JSON values.
    study : str
        Hash of the study.
    private : str
        X25519 private key, 64 hexadecimal digits.
    agreements : dict
        Everybody's public key, verified in the session's first round, hexadecimal; empty before.
    rounds : dict
        By round id: ``context`` (hash of what was asked), ``question`` (what is opened for one set
        of hospitals) and ``opening`` (hash of the story it was opened for, or None).
    """

    call: dict[str, Any]
    study: str
    private: str
    agreements: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def agreed(self, agreements: dict[str, str]) -> "Session":
        """Return the session with everybody's keys.

        Raises
        ------
        PrivacyError
            If others were used before.
        """
        if self.agreements not in ({}, agreements):
            raise PrivacyError(
                "Other keys came than in this session's rounds before; the centre opens a new "
                "session where keys change."
            )
        return replace(self, agreements=agreements)

    def masked(self, round_id: str, record: dict[str, Any]) -> "Session":
        """Return the session after a round was masked.

        Raises
        ------
        PrivacyError
            If it was before.
        """
        if round_id in self.rounds:
            raise PrivacyError(
                "This round was masked before, and two vectors under one mask give away their "
                "difference; the centre asks again under another id."
            )
        return replace(self, rounds={**self.rounds, round_id: record | {"opening": None}})

    def opened(self, round_id: str, story: str) -> "Session":
        """Return the session after it was told who dropped out of a round.

        Raises
        ------
        PrivacyError
            If this hospital did not mask the round, or was told another story before.
        """
        known = self.rounds.get(round_id)
        if known is None:
            raise PrivacyError(
                "The centre asks to open a round in which this hospital sent nothing; nothing was "
                "told."
            )
        if known["opening"] not in (None, story):
            raise PrivacyError(
                "The centre asks to open one round for two stories of who dropped out, which "
                "would bare a hospital's vector; nothing was told, so ask the centre's operator."
            )
        return replace(self, rounds={**self.rounds, round_id: known | {"opening": story}})


@dataclass
class Opened:
    """For which hospitals each question of a study was opened, and in which round.

    Attributes
    ----------
    path : Path
    noised : bool
        The answers carry fresh noise, so that a second opening is a second release that nobody
        counted: the average of both would hold less noise than either.
    """

    path: Path
    noised: bool

    def settle(self, question: str, round_id: str, active: tuple[str, ...]) -> None:
        """Note for whom a question is opened, before anything is told.

        Raises
        ------
        PrivacyError
            If it was opened for others before, or with other noise.
        """
        known = _read(self.path) if self.path.exists() else {}
        before = known.get(question)
        if before is None:
            _write(self.path, {**known, question: {"active": list(active), "round": round_id}})
            return
        if tuple(before["active"]) != active:
            raise PrivacyError(
                f"The sum of this question was opened for {len(before['active'])} hospitals before "
                f"and now is to be for {len(active)}; the difference would be a hospital's own, so "
                "go on with the same hospitals or start the study under another name."
            )
        if self.noised and before["round"] != round_id:
            raise PrivacyError(
                "The sum of this question was opened before, and with fresh noise it would be a "
                "second release; start the study under another name."
            )


def load_session(folder: Path, session: str) -> Session | None:
    """Return a session by its id (which the message's class has checked); None if unknown."""
    path = folder / f"session-{session}.json"
    return Session(**_read(path)) if path.exists() else None


def save_session(folder: Path, session: Session) -> None:
    """Write a session; it is on disk when this returns."""
    path = folder / f"session-{session.call['session']}.json"
    _write(path, vars(session))


def forget_others(folder: Path, session: Session) -> None:
    """Delete the keys of older sessions for the same purpose."""
    for path in folder.glob("session-*.json"):
        other = Session(**_read(path))
        same = other.call["purpose"] == session.call["purpose"]
        if same and other.call["session"] != session.call["session"]:
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "The hospital's memory of a secure sum cannot be read; restore .concors/secure from a "
            "backup, or start the study under another name."
        ) from error
    if not isinstance(content, dict):
        raise DataError("The hospital's memory of a secure sum is no object; restore a backup.")
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
