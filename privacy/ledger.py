"""What a hospital's patients have spent of their privacy: written down before it is spent.

One ledger belongs to one group of patients, and everything that was ever released about them stands
in it: all studies, stages, restarts and trials compose. A round is reserved before anything is
computed; a reservation counts from then on, whether it is committed or not, so a crash, a kill or a
lost reply never makes a round free. Nothing depends on a clock.

How the file holds against crashes, edits and older copies of itself: `privacy.sealed_log`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy.accountant import Spend, epsilon
from privacy.policy import PrivacyPolicy
from privacy.sealed_log import ADVICE, SealedLog
from protocol import audit
from protocol.errors import BudgetError, PrivacyError

__all__ = ["Entry", "Ledger"]

RESERVE, COMMIT = "reserve", "commit"
RESERVED = frozenset(
    {"study", "purpose", "round", "noise_multiplier", "sampling_rate", "num_steps"}
    | {"delta", "study_epsilon", "lifetime_epsilon"}
)
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
        self._log = SealedLog(path, head_path or path.with_suffix(".head"))

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
        with self._log.locked():
            entries = _entries(self._log.lines())
            after = {
                "study": _spent([e for e in entries if e.study == study], spend, policy, "study"),
                "lifetime": _spent(entries, spend, policy, "lifetime"),
            }
            _within(after["study"], policy.study_epsilon, f"study {study}", policy.delta)
            _within(after["lifetime"], policy.lifetime_epsilon, "the lifetime", policy.delta)
            return self._log.append(
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
        with self._log.locked():
            found = [e for e in _entries(self._log.lines()) if e.reservation == reservation]
            if not found:
                raise PrivacyError(
                    "the privacy ledger has no such reservation to commit; reserve first."
                )
            if not found[0].committed:
                self._log.append(COMMIT, {"reservation": reservation})

    def entries(self) -> tuple[Entry, ...]:
        """Return every reservation, the oldest first.

        Raises
        ------
        PrivacyError
            If the ledger was altered.
        """
        if not self._log.exists:
            return ()
        with self._log.locked():
            return _entries(self._log.lines())

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

    def standing(self) -> tuple[audit.Head, tuple[Entry, ...]] | None:
        """Return the head and every reservation, read as one; None where there is no ledger.

        Raises
        ------
        PrivacyError
            If the ledger was altered.
        """
        if not self._log.exists:
            return None
        with self._log.locked():
            entries = _entries(self._log.lines())
            return self._log.head(), entries

    @property
    def head(self) -> audit.Head:
        """How many lines the ledger has, and the hash of the newest."""
        with self._log.locked():
            self._log.lines()
            return self._log.head()


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
