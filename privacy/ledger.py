"""What a hospital's patients have spent of their privacy: written down before it is spent.

One ledger belongs to one group of patients, and everything that was ever released about them stands
in it: all studies, stages, restarts and trials compose. A round is reserved before anything is
computed; a reservation counts from then on, whether it is committed or not, so a crash, a kill or a
lost reply never makes a round free. Nothing depends on a clock.

The ledger is a log of `protocol.audit`: JSON lines, each with the hash of the one before. The head
file, which lies elsewhere, holds the number of lines and the newest hash. A line is on the disk
before the head names it, and the head before anybody may act on the line. So these states exist:

=====================================  ==========================================================
head names the last line               at rest
one whole line more, or a piece of     a crash between the two writes; nobody acted on it: a whole
one without its end                    line is kept (and counts), a piece is dropped
lines missing, or another hash         an older copy was put back, or lines were changed: refused
two lines more, or no readable head    the head was put back or changed: refused
=====================================  ==========================================================

Whoever puts an older copy of both back at once is not detected here. The newest hash
(`Ledger.head`) can be told to others, as it says nothing, so that they may notice.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy.accountant import Spend, epsilon
from privacy.policy import PrivacyPolicy
from protocol import audit
from protocol.errors import BudgetError, DataError, PayloadError, PrivacyError

__all__ = ["Entry", "Ledger"]

RESERVE, COMMIT = "reserve", "commit"
RESERVED = frozenset(
    {"study", "purpose", "round", "noise_multiplier", "sampling_rate", "num_steps"}
    | {"delta", "study_epsilon", "lifetime_epsilon"}
)
MAX_HEAD_BYTES = 200
WORDS = re.compile(r"[A-Za-z0-9 _.-]{1,64}")


@dataclass(frozen=True)
class Entry:
    """One reservation.

    Attributes
    ----------
    reservation : str
        Its name: the hash of its line.
    round_index : int or None
        Which round of the purpose it was for, where there are rounds.
    delta, study_epsilon, lifetime_epsilon : float
        What the study's releases, and all, had cost with this one, at the delta of the policy then.
    committed : bool
        Whether its computation was finished; it counts all the same.
    """

    reservation: str
    study: str
    purpose: str
    round_index: int | None
    spend: Spend
    delta: float
    study_epsilon: float
    lifetime_epsilon: float
    committed: bool


class Ledger:
    """The ledger in one file, safe against crashes and against several processes at once.

    Parameters
    ----------
    path : Path
        The log; made on first use, readable by its owner only.
    head_path : Path, optional
        The head file. It should not lie where a backup of the log is put back; a hospital's lies
        beside ``site.yaml`` (`client.policy.site_ledger`). By default beside the log.
    """

    def __init__(self, path: Path, *, head_path: Path | None = None) -> None:
        self._path = path
        self._head_path = head_path or path.with_suffix(".head")

    def reserve(
        self,
        study: str,
        purpose: str,
        spend: Spend,
        policy: PrivacyPolicy,
        *,
        round_index: int | None = None,
    ) -> str:
        """Charge the releases of one round, and return the name of the reservation.

        When this returns, the reservation is on the disk; only then may anything be computed.

        Parameters
        ----------
        study, purpose : str
            Whose releases, and what of, for example ``"segment"``; never a patient identifier.
        spend : Spend
            All noised releases of this round.
        policy : PrivacyPolicy
            The hospital's terms for this study (`privacy.policy.agree`).
        round_index : int, optional
            Which round of this study and purpose, from 1; at most ``policy.max_rounds``.

        Raises
        ------
        BudgetError
            If the study or the lifetime would spend more than its cap, or the rounds are over.
            Nothing is written then.
        PrivacyError
            If a name is not up to 64 letters, digits, spaces and ``_.-``, or the ledger was
            altered, or cannot be written.
        """
        if not (WORDS.fullmatch(study) and WORDS.fullmatch(purpose)):
            raise PrivacyError(
                "a study or purpose in the privacy ledger has 1 to 64 letters, digits, spaces and "
                "_.-; use a plain name."
            )
        if round_index is not None and not 1 <= round_index <= policy.max_rounds:
            raise BudgetError(
                f"declined: round {round_index} of {purpose} in study {study}; this hospital's "
                f"policy allows {policy.max_rounds} (max_rounds)."
            )
        with self._locked():
            entries = self._recovered()
            after = {
                "study": _spent([e for e in entries if e.study == study], spend, policy, "study"),
                "lifetime": _spent(entries, spend, policy, "lifetime"),
            }
            _within(after["study"], policy.study_epsilon, f"study {study}", policy.delta)
            _within(after["lifetime"], policy.lifetime_epsilon, "the lifetime", policy.delta)
            return self._append(
                RESERVE,
                {
                    "study": study,
                    "purpose": purpose,
                    "round": round_index,
                    "noise_multiplier": spend.noise_multiplier,
                    "sampling_rate": spend.sampling_rate,
                    "num_steps": spend.num_steps,
                    "delta": policy.delta,
                    "study_epsilon": after["study"],
                    "lifetime_epsilon": after["lifetime"],
                },
            )

    def commit(self, reservation: str) -> None:
        """Note that a reservation's computation is finished; once is enough, twice does no harm.

        Raises
        ------
        PrivacyError
            If there is no such reservation, the ledger was altered, or cannot be written.
        """
        with self._locked():
            found = [e for e in self._recovered() if e.reservation == reservation]
            if not found:
                raise PrivacyError(
                    "the privacy ledger has no such reservation to commit; reserve first."
                )
            if not found[0].committed:
                self._append(COMMIT, {"reservation": reservation})

    def entries(self) -> tuple[Entry, ...]:
        """Return every reservation, the oldest first.

        Raises
        ------
        PrivacyError
            If the ledger was altered.
        """
        if not self._path.exists() and not self._head_path.exists():
            return ()
        with self._locked():
            return self._recovered()

    def spent(self, delta: float, study: str | None = None) -> float:
        """Return epsilon at ``delta`` of one study's reservations, or of all.

        Raises
        ------
        PrivacyError
            If the ledger was altered, or delta is not in (0, 1).
        """
        entries = [e for e in self.entries() if study in (None, e.study)]
        which = "lifetime" if study is None else "study"
        return max(_told(entries, delta, which), epsilon([e.spend for e in entries], delta))

    @property
    def head(self) -> audit.Head:
        """How many lines the ledger has, and the hash of the newest."""
        with self._locked():
            self._recovered()
            return self._read_head()

    # --- files -----------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _recovered(self) -> tuple[Entry, ...]:
        """Return the entries after the last crash, if there was one, is made good."""
        head = self._read_head()
        try:
            if self._path.exists():
                self._drop_torn_line(head)
                lines = list(audit.read(self._path))
            else:
                lines = []
        except DataError as error:
            raise PrivacyError(f"{_place(error)} {ADVICE}") from error
        except OSError as error:
            raise _unwritable(error) from error
        if len(lines) < head.num_lines:
            raise PrivacyError(
                f"the privacy ledger has {len(lines)} lines and its head file says "
                f"{head.num_lines}; an older copy was put back or lines were cut off. {ADVICE}"
            )
        named = lines[head.num_lines - 1]["hash"] if head.num_lines else audit.START
        if named != head.hash or len(lines) > head.num_lines + 1:
            raise PrivacyError(
                "the privacy ledger and its head file do not belong together; one of them was "
                f"changed or an older copy of it put back. {ADVICE}"
            )
        if len(lines) > head.num_lines:
            self._write_head(audit.Head(len(lines), lines[-1]["hash"]))
        return _entries(lines)

    def _drop_torn_line(self, head: audit.Head) -> None:
        # Only what stands behind the lines that the head names can be a write that a crash cut
        # short; a piece before that is damage, and stays for `audit.read` to find.
        data = self._path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data) and data.count(b"\n") == head.num_lines:
            with self._path.open("r+b") as stream:
                stream.truncate(end)
                os.fsync(stream.fileno())

    def _append(self, event: str, detail: dict[str, Any]) -> str:
        try:
            new = not self._path.exists()
            name = audit.append(self._path, event, detail, sync=True)
            if new:
                _sync_folder(self._path.parent)
            self._write_head(audit.Head(self._read_head().num_lines + 1, name))
        except (OSError, DataError, PayloadError) as error:
            raise _unwritable(error) from error
        return name

    def _read_head(self) -> audit.Head:
        try:
            with self._head_path.open("rb") as stream:
                text = stream.read(MAX_HEAD_BYTES)
        except FileNotFoundError:
            return audit.Head(0, audit.START)
        except OSError as error:
            raise _unwritable(error) from error
        count, _, name = text.decode("ascii", "replace").partition(" ")
        good = count.isdecimal() and count.isascii() and 1 <= len(count) <= 12
        head = audit.Head(int(count), name.rstrip("\n")) if good else None
        if head is None or _head_text(head) != text:
            raise PrivacyError(f"the head file of the privacy ledger was changed. {ADVICE}")
        return head

    def _write_head(self, head: audit.Head) -> None:
        draft = self._head_path.with_suffix(".draft")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if os.write(descriptor, _head_text(head)) != len(_head_text(head)):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            draft.replace(self._head_path)
            _sync_folder(self._head_path.parent)
        except OSError as error:
            raise _unwritable(error) from error


ADVICE = (
    "No budget can be granted from it: put the newest copies of both files back, or ask who "
    "changed them; without them what these patients have spent is unknown."
)


def _head_text(head: audit.Head) -> bytes:
    return f"{head.num_lines} {head.hash}\n".encode()


def _place(error: DataError) -> str:
    return error.sentence.partition(";")[0].replace("Audit log", "privacy ledger") + "."


def _unwritable(error: Exception) -> PrivacyError:
    why = error.strerror if isinstance(error, OSError) else "a line was not taken whole"
    return PrivacyError(
        f"the privacy ledger cannot be written ({why}), so nothing was computed; make room on the "
        "disk and the site's folder writable."
    )


def _sync_folder(folder: Path) -> None:
    # The name of a new file is in its folder, which has to reach the disk as well.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- what the lines say --------------------------------------------------------------------------


def _entries(lines: list[dict[str, Any]]) -> tuple[Entry, ...]:
    committed = {line["detail"].get("reservation") for line in lines if line["event"] == COMMIT}
    found = []
    for number, line in enumerate(lines, start=1):
        detail = line["detail"]
        if line["event"] == COMMIT:
            continue
        if line["event"] != RESERVE or detail.keys() != RESERVED:
            raise PrivacyError(f"line {number} of the privacy ledger is of another kind. {ADVICE}")
        found.append(
            Entry(
                line["hash"],
                detail["study"],
                detail["purpose"],
                detail["round"],
                Spend(detail["noise_multiplier"], detail["sampling_rate"], detail["num_steps"]),
                detail["delta"],
                detail["study_epsilon"],
                detail["lifetime_epsilon"],
                line["hash"] in committed,
            )
        )
    return tuple(found)


def _told(entries: list[Entry] | tuple[Entry, ...], delta: float, which: str) -> float:
    """Return the largest epsilon that the entries tell for this delta: it never falls."""
    told = [getattr(e, f"{which}_epsilon") for e in entries if e.delta == delta]
    return max(told, default=0.0)


def _spent(
    entries: list[Entry] | tuple[Entry, ...], spend: Spend, policy: PrivacyPolicy, which: str
) -> float:
    new = epsilon([*(e.spend for e in entries), spend], policy.delta)
    return max(_told(entries, policy.delta, which), new)


def _within(after: float, cap: float, whose: str, delta: float) -> None:
    if after > cap:
        raise BudgetError(
            f"declined: budget of {whose} at this hospital would be epsilon {after:.6g} at delta "
            f"{delta:g}, above its cap of {cap:g}; ask for fewer steps, more noise or a smaller "
            "sampling rate, or end here."
        )
