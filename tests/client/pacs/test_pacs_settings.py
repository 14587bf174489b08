"""What ``site.yaml``, a list and a query may say, and what is refused in one sentence."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from client.cli import app
from client.pacs.archive import Study
from client.pacs.fetch import fetch
from client.pacs.journal import Journal
from client.pacs.settings import Credentials, Tls, authorization
from client.pacs.tls import client_context
from client.pacs.wanted import Entry, days_query, matches, read_list
from client.site import load_site
from protocol.errors import ConfigError, DataError

GOOD = {"protocol": "dicomweb", "host": "archive.example", "port": 8042}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"passwd": "x"}, "unknown key 'passwd' in pacs"),
        ({"protocol": "ftp"}, "pacs.protocol"),
        ({"port": 0}, "pacs.port"),
        ({"host": "a b/c"}, "pacs.host"),
        ({"root": "/../x"}, ""),
        ({"root": "/a b"}, "pacs.root"),
        ({"protocol": "c-move"}, "own_host and own_port"),
        ({"credentials": {"file": "login"}}, "would travel in clear; give tls"),
        ({"credentials": {"file": "a", "environment": "B"}}, "either file or environment"),
        ({"protocol": "c-get", "credentials": {"file": "a"}}, "only with dicomweb"),
        ({"tls": {"certificate": "a"}}, "both certificate and key"),
        ({"modalities": ["mr"]}, "capital letters"),
        ({"modalities": []}, "pacs.modalities"),
        ({"files_per_second": 0}, "pacs.files_per_second"),
        ({"ae_title": "A" * 17}, "pacs.ae_title"),
        ({"ae_title": "A\\B"}, "pacs.ae_title"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    document = {
        "name": "site",
        "images": {"format": "dicom", "path": "store"},
        "pacs": GOOD | changes,
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(document))
    if not words:
        # Dots are names like others here; they stay in one address of one host.
        assert load_site(tmp_path).pacs is not None
        return
    with pytest.raises(ConfigError) as raised:
        load_site(tmp_path)
    assert words in raised.value.sentence


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, "give images.path"),
        ({"format": "dicom", "path": "../elsewhere"}, "no folder below"),
        ({"format": "dicom", "path": "."}, "no folder below"),
        ({"format": "acdc", "path": "acdc"}, "give images.path"),
    ],
)
def test_the_store_lies_below_the_site(images: Any, words: str, tmp_path: Path) -> None:
    document = {"name": "site", "images": images, "pacs": GOOD}
    if images is None:
        document |= {"outcomes": {"path": "o", "patient": "p", "months": "m", "event": "e"}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=words):
        fetch(tmp_path, [Entry(1, uid="1.2")])
    (tmp_path / "site.yaml").write_text("name: site\nimages: {format: dicom, path: store}\n")
    with pytest.raises(ConfigError, match="no section pacs"):
        fetch(tmp_path, [Entry(1, uid="1.2")])


def test_a_login_comes_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "login"
    path.touch(0o600)
    path.write_text("user:pass:word\n")
    assert authorization(tmp_path, Credentials(file="login")) == ("user", "pass:word")
    path.write_text("Bearer abc.def")
    assert authorization(tmp_path, Credentials(file="login")) == "Bearer abc.def"
    monkeypatch.setenv("SOME_LOGIN", "user:word")
    assert authorization(tmp_path, Credentials(environment="SOME_LOGIN")) == ("user", "word")
    for content in ("", "secretword", ":secretword", "user:", "user:a\nX-Header: secretword"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="holds no login") as raised:
            authorization(tmp_path, Credentials(file="login"))
        assert "secretword" not in raised.value.sentence
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="set its mode to 0600"):
        authorization(tmp_path, Credentials(file="login"))
    for wrong, words in (("absent", "cannot be read"), ("../login", "leads out")):
        with pytest.raises(ConfigError, match=words):
            authorization(tmp_path, Credentials(file=wrong))
    with pytest.raises(ConfigError, match="OTHER_LOGIN holds no login"):
        authorization(tmp_path, Credentials(environment="OTHER_LOGIN"))


def test_files_of_tls_lie_below_the_site(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("rubbish")
    with pytest.raises(ConfigError, match="leads out"):
        client_context(tmp_path, Tls(authority="../ca.pem"))
    for name in ("absent.pem", "ca.pem"):
        with pytest.raises(ConfigError, match="cannot be read as PEM"):
            client_context(tmp_path, Tls(authority=name))


def test_a_list_holds_uids_and_accession_numbers(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# ours\n\n1.2.840.1\n A-17 \n1.2.840.1\n20230017\n")
    assert read_list(path) == [
        Entry(3, uid="1.2.840.1"),
        Entry(4, accession="A-17"),
        Entry(6, accession="20230017"),
    ]
    for bad in ("*", "A?", "A\\B", "A" * 17, "1." + "2" * 80):
        path.write_text(f"1.2\n{bad}\n")
        with pytest.raises(ConfigError, match="line 2 of the list") as raised:
            read_list(path)
        assert bad not in raised.value.sentence.replace("A-", "")
    path.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="names no study"):
        read_list(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_list(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_list(tmp_path)


def test_what_an_archive_answers_is_compared_with_the_question() -> None:
    query = days_query(date(2020, 1, 1), date(2020, 12, 31), "MR", "*heart?[1]*")
    good = Study("1.2", "20200101", ("MR", "SR"), "The Heart-[1] study", "")
    assert matches(good, query)
    # An archive may say nothing of these.
    assert matches(Study("1.2", "", (), "", ""), query)
    for other in (
        Study("1.2", "20191231", ("MR",), "heart-[1]", ""),
        Study("1.2", "20210101", ("MR",), "heart-[1]", ""),
        Study("1.2", "20200101", ("CT",), "heart-[1]", ""),
        Study("1.2", "20200101", ("MR",), "heart-1", ""),
    ):
        assert not matches(other, query)
    with pytest.raises(ConfigError, match="--from is after --to"):
        days_query(date(2020, 1, 2), date(2020, 1, 1), "MR", "")
    with pytest.raises(ConfigError, match="--description"):
        days_query(None, None, "MR", "a\\b")


def test_the_command_says_what_it_wants(make_site: Callable[..., Path]) -> None:
    site = make_site("dicomweb", 9)
    run = CliRunner()
    result = run.invoke(app, ["fetch", str(site)])
    assert result.exit_code == 1 and "say which studies" in " ".join(result.output.split())
    arguments = ["fetch", str(site), "--list", "x", "--from", "2020-01-01"]
    result = run.invoke(app, arguments)
    assert result.exit_code == 1 and "give either --list or a query" in result.output


def test_a_journal_survives_a_torn_line_and_names_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "fetch.jsonl"
    journal = Journal(path)
    journal.note("start", {})
    journal.note_stored("s", "a", 10, "0" * 64)
    with path.open("ab") as stream:
        stream.write(b'{"event": "stor')
    again = Journal(path)
    assert again.stored == {"s": {"a": 10}}
    again.note_stored("s", "b", 11, "0" * 64)
    assert Journal(path).stored == {"s": {"a": 10, "b": 11}}
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (b"rubbish\n", b'{"event": "stored", "detail": {"study": "s"}}\n', b"[]\n"):
        path.write_bytes(lines[0] + wrong + lines[1])
        with pytest.raises(DataError, match=r"line 2 of \.concors/fetch\.jsonl is damaged"):
            Journal(path)
