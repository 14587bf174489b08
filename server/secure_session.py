"""Who takes part in secure sums: keys agreed on through the centre, which learns none of them."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from privacy.secure_sum.rules import LEAST_COHORT, least_threshold
from protocol.config import Study
from protocol.errors import ConcorsError, PayloadError, QuorumError
from protocol.payload import Answer, Question, Refusal
from protocol.secure import Advert, RoundCall, SessionCall
from server.asking import WALL_CLOCK, Clock, ask
from server.hospitals import require_quorum

__all__ = ["SecureSession", "open_session", "read_with", "reasons"]


@dataclass(frozen=True)
class SecureSession:
    """Who agreed on keys, for what.

    Attributes
    ----------
    grid : Grid
    nodes : mapping
        Node id by hospital name, of the cohort.
    study : Study
    call : SessionCall
    adverts : tuple of Advert
        In the cohort's order.
    refused : dict
        Who was asked and is not in it.
    """

    grid: Grid
    nodes: Mapping[str, int]
    study: Study
    call: SessionCall
    adverts: tuple[Advert, ...]
    refused: dict[str, Refusal]
    clock: Clock = WALL_CLOCK

    def round_call(self, weight_cap: float = 1.0, clip_norm: float | None = None) -> RoundCall:
        """Return the call for one more round."""
        return RoundCall(self.call, secrets.token_hex(16), self.adverts, weight_cap, clip_norm)


def open_session(
    grid: Grid,
    nodes: Mapping[str, int],
    study: Study,
    purpose: str,
    *,
    first_round: int = 1,
    clock: Clock = WALL_CLOCK,
) -> SecureSession:
    """Have hospitals agree on keys; those that refuse or are absent are left out.

    A key is signed together with the names of all who take part, so that without those left out
    the rest is asked again.

    Raises
    ------
    QuorumError
        If fewer than the study's minimum or its quorum agree.
    """
    sites, refused = sorted(nodes), dict[str, Refusal]()
    section = study.secure_aggregation
    least = max(LEAST_COHORT, section.min_hospitals if section is not None else 0)
    while True:
        if len(sites) < least:
            raise QuorumError(
                f"{len(sites)} hospitals agree on keys for a secure sum, expected {least} or more "
                f"({reasons(refused)}); mend this and resume."
            )
        call = SessionCall(
            secrets.token_hex(16), purpose, first_round, tuple(sites), _least(study, len(sites))
        )
        request = Question(study, "secure_open", {"call": call.to_dict()}).to_records()
        adverts, absent = dict[str, Advert](), dict[str, Refusal]()
        here = {site: nodes[site] for site in sites}
        for site, outcome in ask(
            grid, here, request, "query.secure_open", study.rounds, group="keys", clock=clock
        ):
            advert = read_with(outcome, partial(_advert, site=site))
            if isinstance(advert, Refusal):
                absent[site] = advert
            else:
                adverts[site] = advert
        refused |= absent
        sites = sorted(adverts)
        what = f"The keys for {purpose}"
        require_quorum(sites, refused, study.rounds.quorum, what)
        if not absent:
            ordered = tuple(adverts[site] for site in sites)
            return SecureSession(grid, here, study, call, ordered, refused, clock)


def _advert(records: RecordDict, site: str) -> Advert:
    where = f"The key of {site}"
    document = Answer.from_records(records, where).document
    advert = Advert.from_dict(document.get("advert"), where)
    if advert.site != site:
        raise PayloadError(f"{where} is another hospital's; start one node for each.")
    return advert


def _least(study: Study, num_hospitals: int) -> int:
    section = study.secure_aggregation
    wanted = (section.threshold if section is not None else None) or 0
    least = section.min_hospitals if section is not None else LEAST_COHORT
    return max(wanted, min(least, num_hospitals), least_threshold(num_hospitals))


def read_with(outcome: RecordDict | Refusal, read: Callable[[RecordDict], Any]) -> Any:
    """Return what a reply says, or why it cannot be used."""
    if isinstance(outcome, Refusal):
        return outcome
    try:
        return read(outcome)
    except ConcorsError as error:
        return Refusal.of(error)


def reasons(refused: Mapping[str, Refusal]) -> str:
    """Return why each was left out, for an error's sentence."""
    return "; ".join(f"{s}: {refused[s].code} {refused[s].sentence}" for s in sorted(refused))
