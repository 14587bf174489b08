"""Refusals: exact round trips, and no foreign text."""

import pytest
from flwr.app import Error

from protocol.errors import PayloadError, TrainingError
from protocol.refusal import Refusal


def test_a_refusal_comes_back_as_it_was() -> None:
    refusal = Refusal.of(TrainingError("The loss is not finite."))
    assert refusal == Refusal("E300", "The loss is not finite.")
    assert Refusal.from_error(refusal.to_error()) == refusal


def test_the_text_of_a_foreign_exception_is_not_shown() -> None:
    error = Error(2, "<class 'FileNotFoundError'>:<'/data/DOE^JANE.dcm'>")
    refusal = Refusal.from_error(error)
    assert refusal.code == "E502"
    assert refusal.sentence.startswith("The hospital did not reply because its app failed")
    assert "DOE" not in refusal.sentence


def test_a_refusal_cannot_forge_lines_of_a_log() -> None:
    refusal = Refusal.from_error(Error(300, "bad\n2026-01-01 all is well\x1b[2J" + "x" * 1000))
    assert "\n" not in refusal.sentence
    assert "\x1b" not in refusal.sentence
    assert len(refusal.sentence) == 500


@pytest.mark.parametrize("code", ["E1", "300", "E0x1", "E012"])
def test_a_code_is_e_and_three_digits(code: str) -> None:
    with pytest.raises(PayloadError, match="is not E and three digits"):
        Refusal(code, "x").to_error()
