"""What our programs say: how much and how, as one variable has it, and nothing that is quoted."""

import json
import logging

import pytest

from deployment.logs import VARIABLE, configure
from protocol.errors import ConfigError, DataError

CANARY = "DOE^JANE-998877"


def say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str
) -> list[str]:
    """Return the lines that four messages and a failure leave on standard error."""
    monkeypatch.setenv(VARIABLE, setting)
    configure()
    configure()
    log = logging.getLogger("server.recording")
    log.debug("a detail")
    log.info("%s answered", "alder", extra={"site": "alder", "round": 3})
    log.warning("refused")
    logging.getLogger("another.package").error("not ours")
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise DataError("alder has no table; add one.") from error
    except DataError:
        log.exception("failed")
    lines = capsys.readouterr().err.splitlines()
    monkeypatch.delenv(VARIABLE)
    configure()
    return [line for line in lines if "not ours" not in line]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("", ["refused", "failed"]),
        ("error", ["failed"]),
        ("info", ["alder answered", "refused", "failed"]),
        (" TEXT , debug", ["a detail", "alder answered", "refused", "failed"]),
    ],
)
def test_the_level_is_that_of_the_variable(
    setting: str, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = say(monkeypatch, capsys, setting)
    assert [line.split(": ", 1)[1] for line in lines if "server.recording: " in line] == said


def test_json_is_one_object_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in say(monkeypatch, capsys, "json,info")]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    first = lines[0]
    assert (first["message"], first["site"], first["round"]) == ("alder answered", "alder", 3)
    assert first["time"].endswith("+00:00") and first["logger"] == "server.recording"
    assert "DataError: alder has no table; add one." in lines[2]["exception"]


@pytest.mark.parametrize("setting", ["debug", "debug,json"])
def test_the_text_of_a_foreign_exception_is_not_told(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(say(monkeypatch, capsys, setting))
    assert CANARY not in text and "KeyError: (its text is not kept)" in text


def test_an_unknown_word_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "info,loud")
    with pytest.raises(ConfigError, match="holds 'loud', expected one of debug, info"):
        configure()
