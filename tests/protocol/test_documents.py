"""JSON: canonical, strict, bounded."""

import pytest

from protocol.documents import MAX_DOCUMENT_BYTES, check_keys, decode, digest, encode
from protocol.errors import PayloadError


def test_a_round_trip_is_exact() -> None:
    document = {"b": [0.1, 1e-310, -0.0, 2**60], "a": {"x": None, "ü": "é"}}
    back = decode(encode(document, "D"), "D")
    assert back == document
    assert str(back["b"][2]) == "-0.0"


def test_equal_documents_have_equal_bytes() -> None:
    assert encode({"a": 1, "b": 2}, "D") == encode({"b": 2, "a": 1}, "D")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(PayloadError, match=r"^The answer holds a value that cannot be sent"):
        encode({"x": value}, "The answer")


@pytest.mark.parametrize(
    "text",
    ['{"x":NaN}', '{"x":-Infinity}', '{"x":1e999}', '{"x":1,"x":2}', '{"x":' + "[" * 200_000],
)
def test_what_is_not_a_finite_number_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match=r"^The answer holds a NaN, an infinite number"):
        decode(text, "The answer")


@pytest.mark.parametrize("text", ["", "{", "nothing", "{'x': 1}"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match=r"^The answer is not JSON"):
        decode(text, "The answer")


def test_an_integer_with_ten_thousand_digits_is_refused() -> None:
    with pytest.raises(PayloadError):
        decode('{"x":' + "9" * 10_000 + "}", "The answer")


def test_a_list_is_not_a_document() -> None:
    with pytest.raises(PayloadError, match="is not a JSON object"):
        decode("[1]", "The answer")


def test_the_limit_holds_both_ways() -> None:
    text = '{"x":"' + "a" * (MAX_DOCUMENT_BYTES - 8) + '"}'
    assert encode(decode(text, "D"), "D") == text
    with pytest.raises(PayloadError, match="more than 8388608; send less"):
        decode(text + " ", "D")
    with pytest.raises(PayloadError, match="more than 8388608; send less"):
        encode({"x": "a" * MAX_DOCUMENT_BYTES}, "D")


def test_missing_and_unknown_keys_are_refused() -> None:
    check_keys({"a": 1}, frozenset({"a"}), "D")
    with pytest.raises(PayloadError, match=r"^D lacks b and has 1 unknown key"):
        check_keys({"a": 1, "c": 2}, frozenset({"a", "b"}), "D")
