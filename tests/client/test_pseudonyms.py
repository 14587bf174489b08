"""Keys: stable under one secret, unlinkable under two."""

import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from client.pseudonyms import load_secret, pseudonym
from protocol.errors import DataError


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = load_secret(tmp_path, "site.secret")
    assert load_secret(tmp_path, "site.secret") == first and len(first) == 32
    assert stat.S_IMODE((tmp_path / "site.secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["site.secret"]


def test_a_key_is_hmac_sha256() -> None:
    expected = hmac.new(b"k" * 32, b"12345", hashlib.sha256).hexdigest()[:16]
    assert pseudonym(b"k" * 32, " 12345 ") == expected


def test_two_hospitals_give_one_person_two_keys(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    keys = {pseudonym(load_secret(tmp_path / name, "s"), "12345") for name in "ab"}
    assert len(keys) == 2


@pytest.mark.parametrize(("text", "sentence"), [("zz", "hexadecimal"), ("ab", "shorter than 32")])
def test_a_damaged_secret_is_not_replaced(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "site.secret").write_text(text)
    with pytest.raises(DataError, match=sentence):
        load_secret(tmp_path, "site.secret")
    assert (tmp_path / "site.secret").read_text() == text
