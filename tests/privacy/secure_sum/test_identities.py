"""A signed key of agreement counts for one study, session and cohort, by one trusted identity."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.secure_sum.identities import advertise, fingerprint_of, verify
from protocol.errors import PrivacyError
from protocol.secure import SessionCall

CALL = SessionCall("0" * 32, "train.prognosis", 1, ("a", "b", "c"), 3)
KEY = Ed25519PrivateKey.generate()
TRUSTED = fingerprint_of(KEY.public_key().public_bytes_raw())
ADVERT = advertise(KEY, "study", CALL, "a", b"x" * 32)


def test_what_was_signed_is_accepted() -> None:
    verify(ADVERT, "study", CALL, TRUSTED)
    verify(ADVERT, "study", CALL, TRUSTED.upper())


@pytest.mark.parametrize(
    ("advert", "study", "call"),
    [
        (replace(ADVERT, agreement=b"y" * 32), "study", CALL),
        (replace(ADVERT, site="b"), "study", CALL),
        (replace(ADVERT, signature=bytes(64)), "study", CALL),
        (ADVERT, "another study", CALL),
        (ADVERT, "study", replace(CALL, session="1" * 32)),
        (ADVERT, "study", replace(CALL, purpose="train.segment")),
        (ADVERT, "study", replace(CALL, first_round=2)),
        (ADVERT, "study", replace(CALL, cohort=("a", "b", "d"))),
        (ADVERT, "study", replace(CALL, threshold=2)),
    ],
)
def test_a_key_for_another_occasion_is_refused(advert, study: str, call: SessionCall) -> None:
    with pytest.raises(PrivacyError, match="not signed for this study, session and cohort"):
        verify(advert, study, call, TRUSTED)


def test_a_stranger_s_well_signed_key_is_refused() -> None:
    forged = advertise(Ed25519PrivateKey.generate(), "study", CALL, "a", b"y" * 32)
    with pytest.raises(PrivacyError, match="not signed by the identity this hospital trusts"):
        verify(forged, "study", CALL, TRUSTED)
    # Nor does it help to claim the trusted identity with a signature of one's own.
    claimed = replace(forged, identity=KEY.public_key().public_bytes_raw())
    with pytest.raises(PrivacyError, match="not signed for this study"):
        verify(claimed, "study", CALL, TRUSTED)
