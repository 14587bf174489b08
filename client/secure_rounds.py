"""The hospital's half of a secure sum: a key for a session, a masked vector, shares to open a sum.

Nothing the centre says is believed that can be checked here: who takes part, whose keys these are,
that nothing is asked twice. The rules and the mathematics stand in `privacy.secure_sum`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.secure_identity import load_identity
from client.secure_settings import SecureSettings
from client.secure_state import Opened, Session, forget_others, load_session, save_session
from client.site import SiteConfig, load_site
from privacy.secure_sum.identities import advertise, verify
from privacy.secure_sum.quantise import WordArray
from privacy.secure_sum.rounds import RoundKeys, mask_vector, tell_shares
from privacy.secure_sum.rules import check_cohort, check_opening
from protocol.config import Study
from protocol.documents import digest
from protocol.errors import PrivacyError
from protocol.payload import Answer, Question
from protocol.secure import MaskedReply, Opening, RoundCall, SessionCall

__all__ = ["SecureRound", "enter", "open_session", "tell"]


def _settings(config: SiteConfig) -> SecureSettings:
    if config.secure_aggregation is None:
        raise PrivacyError(
            f"{config.name} was asked for a secure sum and trusts nobody's keys yet; exchange "
            "fingerprints (concors-client identity) and enter them in secure_aggregation.peers of "
            "site.yaml."
        )
    return config.secure_aggregation


def _identity_of(study: Study) -> str:
    return digest(study.model_dump(mode="json", by_alias=True))


def _folder(site_dir: Path, study: Study) -> Path:
    return site_dir / ".concors" / "secure" / study.name


def _check(config: SiteConfig, study: Study, call: SessionCall) -> None:
    settings, section = _settings(config), study.secure_aggregation
    wanted = section.min_hospitals if section is not None else 0
    least = max(settings.min_hospitals, wanted)
    check_cohort(call.cohort, config.name, call.threshold, settings.peers, least)
    updates = section.updates if section is not None else None
    noise = updates.noise_multiplier if updates is not None else 0.0
    if call.purpose.startswith("train.") and noise < settings.min_update_noise:
        raise PrivacyError(
            f"{config.name} asks for noise of {settings.min_update_noise:g} clipping bounds on a "
            f"sum of updates, and the study adds {noise:g}; raise "
            "secure_aggregation.updates.noise_multiplier in the study."
        )


def open_session(site_dir: Path, question: Question) -> Answer:
    """Make a key of agreement for a session and return it signed.

    Raises
    ------
    PrivacyError
        As `privacy.secure_sum.rules.check_cohort`, or if the session is known as another one.
    """
    config, study = load_site(site_dir), question.study
    call = SessionCall.from_dict(question.agreed.get("call"), "The centre's session")
    _check(config, study, call)
    folder, known = _folder(site_dir, study), _identity_of(study)
    session = load_session(folder, call.session)
    if session is None:
        private = X25519PrivateKey.generate().private_bytes_raw().hex()
        session = Session(call.to_dict(), known, private)
        save_session(folder, session)
        forget_others(folder, session)
    _same(session, call, known)
    public = _private(session).public_key().public_bytes_raw()
    advert = advertise(load_identity(site_dir), known, call, config.name, public)
    return Answer({"advert": advert.to_dict()})


def _private(session: Session) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(session.private))


def _same(session: Session, call: SessionCall, study: str) -> None:
    if session.call != call.to_dict() or session.study != study:
        raise PrivacyError(
            "This session was opened for another study, purpose or cohort; the centre opens a new "
            "one."
        )


@dataclass(frozen=True)
class SecureRound:
    """A round this hospital will answer by a masked vector; everything about it was checked.

    Attributes
    ----------
    call : RoundCall
    keys : RoundKeys
    """

    call: RoundCall
    keys: RoundKeys
    folder: Path
    question: str

    @property
    def num_hospitals(self) -> int:
        return len(self.keys.cohort)

    def mask(self, vector: WordArray) -> MaskedReply:
        """Return the masked vector, once.

        Raises
        ------
        PrivacyError
            If this round was masked before.
        """
        session = load_session(self.folder, self.call.call.session)
        if session is None:
            raise PrivacyError("The session is gone from this hospital; open a new one.")
        agreements = {site: key.hex() for site, key in self.keys.agreements.items()}
        record = {"context": self.keys.context.hex(), "question": self.question}
        # On disk before anything that was masked exists.
        session = session.agreed(agreements).masked(self.call.round_id, record)
        save_session(self.folder, session)
        return mask_vector(self.keys, vector)


def enter(
    site_dir: Path, study: Study, message_type: str, asked: dict[str, Any], question: str
) -> SecureRound:
    """Check everything about a round before the work for it begins.

    Parameters
    ----------
    message_type : str
        E.g. ``"train.prognosis"``.
    asked : dict
        All that was asked (a model by its fingerprint), JSON values; ``agreed`` holds ``secure``.
    question : str
        What is to be opened for one set of hospitals only, e.g. a stage's round.

    Raises
    ------
    PrivacyError
        If the session, the cohort, a key or the round is not as it must be.
    """
    config, where = load_site(site_dir), "The centre's secure round"
    call = RoundCall.from_dict(asked["agreed"].get("secure"), where)
    _check(config, study, call.call)
    folder, known = _folder(site_dir, study), _identity_of(study)
    session = load_session(folder, call.call.session)
    if session is None or call.call.purpose != message_type:
        raise PrivacyError(
            "This hospital has no key for this session and purpose; the centre opens a new session."
        )
    _same(session, call.call, known)
    if call.round_id in session.rounds:
        session.masked(call.round_id, {})
    agreements = _verified(config, call, known, session)
    context = hashlib.sha256(digest(asked | {"study": known}).encode()).digest()
    keys = RoundKeys(
        config.name,
        _private(session),
        agreements,
        call.call.cohort,
        call.call.threshold,
        context,
    )
    return SecureRound(call, keys, folder, question)


def _verified(
    config: SiteConfig, call: RoundCall, study: str, session: Session
) -> dict[str, bytes]:
    """Return everybody's keys of agreement, each signed by whom this hospital trusts."""
    if tuple(advert.site for advert in call.adverts) != call.call.cohort:
        raise PrivacyError("The keys that came are not those of the cohort; ask the operator.")
    own = _private(session).public_key().public_bytes_raw()
    for advert in call.adverts:
        if advert.site != config.name:
            verify(advert, study, call.call, _settings(config).peers[advert.site])
        elif advert.agreement != own:
            raise PrivacyError(
                "The key that came back as this hospital's own is another one; ask the operator."
            )
    session.agreed({advert.site: advert.agreement.hex() for advert in call.adverts})
    return {advert.site: advert.agreement for advert in call.adverts}


def tell(site_dir: Path, question: Question) -> Answer:
    """Return the shares that open a round's sum, for one story of who dropped out.

    Raises
    ------
    PrivacyError
        As `privacy.secure_sum.rules.check_opening`; for a second story of one round; for a second
        set of hospitals of one question.
    """
    config, folder = load_site(site_dir), _folder(site_dir, question.study)
    opening = Opening.from_dict(question.agreed.get("opening"), "The centre's opening")
    session = load_session(folder, opening.session)
    if session is None:
        raise PrivacyError("This hospital has no key for this session; nothing was told.")
    call = SessionCall.from_dict(session.call, "The hospital's session")
    _same(session, call, _identity_of(question.study))
    # The hospital's minimum may have been raised since.
    _check(config, question.study, call)
    active, dropped = tuple(sorted(opening.active)), tuple(sorted(opening.dropped))
    check_opening(call.cohort, config.name, call.threshold, opening.active, opening.dropped)
    told_once = session.opened(opening.round_id, digest({"active": active, "dropped": dropped}))
    record = session.rounds[opening.round_id]
    agreements = {site: bytes.fromhex(key) for site, key in session.agreements.items()}
    context = bytes.fromhex(record["context"])
    keys = RoundKeys(
        config.name, _private(session), agreements, call.cohort, call.threshold, context
    )
    shares = tell_shares(keys, active, dropped, opening.deposits)
    opened = Opened(folder / "opened.json", _noised(question.study, call))
    opened.settle(record["question"], opening.round_id, active)
    save_session(folder, told_once)
    return Answer({"shares": shares})


def _noised(study: Study, call: SessionCall) -> bool:
    section = study.secure_aggregation
    trains = call.purpose.startswith("train.")
    return trains and section is not None and section.updates is not None
