"""A study may ask for more privacy than a hospital's policy gives, never for less."""

import pytest
from pydantic import ValidationError

from privacy.policy import UPWARD, PrivacyPolicy, agree, stricter
from protocol.errors import PrivacyError
from protocol.privacy_config import PrivacyAsked

POLICY = PrivacyPolicy(
    noise_multiplier=2.0,
    clip_norm=1.0,
    sampling_rate=0.1,
    steps_per_round=10,
    max_rounds=20,
    delta=1e-4,
    study_epsilon=3.0,
    lifetime_epsilon=6.0,
    statistics_noise=10.0,
)
COUNTS = {"steps_per_round", "max_rounds", "slices_per_patient"}
FIELDS = sorted(PrivacyPolicy.model_fields)


def test_a_study_can_ask_for_every_term_and_for_nothing_else() -> None:
    assert sorted(PrivacyAsked.model_fields) == sorted([*FIELDS, "required"])


@pytest.mark.parametrize("field", FIELDS)
def test_more_private_is_taken_and_less_is_refused(field: str) -> None:
    value = getattr(POLICY, field)
    change = 1 if field in COUNTS else value / 2
    more, less = value - change, value + change
    if field in UPWARD:
        more, less = less, more
    agreed = stricter(POLICY, PrivacyAsked.model_validate({field: more}))
    assert getattr(agreed, field) == more
    unchanged = set(FIELDS) - {field}
    assert all(getattr(agreed, each) == getattr(POLICY, each) for each in unchanged)
    bound = "at least" if field in UPWARD else "at most"
    words = rf"privacy\.{field} {less:g}, and this hospital's policy allows {bound} {value:g};"
    with pytest.raises(PrivacyError, match=words):
        stricter(POLICY, PrivacyAsked.model_validate({field: less}))
    assert stricter(POLICY, PrivacyAsked.model_validate({field: value})) == POLICY


def test_a_smaller_lifetime_cap_bounds_the_study_too() -> None:
    agreed = stricter(POLICY, PrivacyAsked(lifetime_epsilon=1.0))
    assert (agreed.study_epsilon, agreed.lifetime_epsilon) == (1.0, 1.0)


def test_one_weak_wish_among_strict_ones_is_refused() -> None:
    with pytest.raises(PrivacyError, match="clip_norm 2"):
        stricter(POLICY, PrivacyAsked(noise_multiplier=9.0, clip_norm=2.0))


def test_who_takes_part() -> None:
    assert agree(POLICY, PrivacyAsked(required=True)) == POLICY
    assert agree(None, PrivacyAsked(noise_multiplier=9.0)) is None
    with pytest.raises(PrivacyError, match="only hospitals with a privacy policy"):
        agree(None, PrivacyAsked(required=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", 0),
        ("noise_multiplier", float("nan")),
        ("noise_multiplier", float("inf")),
        ("clip_norm", 0),
        ("clip_norm", float("inf")),
        ("sampling_rate", 0),
        ("sampling_rate", 1.01),
        ("steps_per_round", 0),
        ("max_rounds", 0),
        ("delta", 0),
        ("delta", 1),
        ("study_epsilon", 0),
        ("study_epsilon", 6.5),
        ("lifetime_epsilon", float("inf")),
        ("statistics_noise", 0),
        ("slices_per_patient", 0),
        ("seed", 1),
    ],
)
def test_terms_at_and_beyond_their_limits(field: str, value: float) -> None:
    with pytest.raises(ValidationError):
        PrivacyPolicy.model_validate(POLICY.model_dump() | {field: value})


def test_terms_are_frozen() -> None:
    with pytest.raises(ValidationError):
        POLICY.noise_multiplier = 0.1  # type: ignore[misc]
