"""Nothing of a foreign exception leaves the hospital."""

from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.boundary import guarded
from protocol.errors import DataError
from protocol.payload import Refusal
from sim.grid import LocalGrid

CANARY = "DOE^JANE-998877"
app = ClientApp()


@app.query("foreign")
@guarded
def foreign(message: Message, context: Context) -> Message:
    raise FileNotFoundError(f"/data/{CANARY}/IM0001")


@app.query("ours")
@guarded
def ours(message: Message, context: Context) -> Message:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        raise DataError("alder has no outcome table; add one.") from error


@app.query("fine")
@guarded
def fine(message: Message, context: Context) -> Message:
    return Message(RecordDict({"ok": ConfigRecord({"yes": 1})}), reply_to=message)


def reply(topic: str, site: Path) -> Message:
    grid = LocalGrid(app, [{"site": str(site)}])
    (node,) = grid.get_node_ids()
    ids = grid.push_messages([Message(RecordDict(), node, f"query.{topic}")])
    (message,) = grid.pull_messages(ids)
    return message


def make_site(folder: Path) -> Path:
    (folder / "site.yaml").write_text("name: alder\n")
    return folder


def test_a_foreign_exception_leaves_as_our_sentence_and_only_its_place_is_logged(
    tmp_path: Path,
) -> None:
    message = reply("foreign", make_site(tmp_path))
    refusal = Refusal.from_error(message.error)
    assert refusal.code == "E900"
    assert refusal.sentence == (
        "The client failed unexpectedly in foreign; where, and with what kind of error, stands in "
        "the hospital's own log, .concors/client.log, and nowhere else."
    )
    assert CANARY not in str(message.error)
    log = (tmp_path / ".concors" / "client.log").read_text()
    assert "FileNotFoundError: (its text is not kept)" in log and "in foreign" in log
    assert CANARY not in log


def test_our_own_error_leaves_with_its_code_and_not_its_cause(tmp_path: Path) -> None:
    message = reply("ours", make_site(tmp_path))
    assert Refusal.from_error(message.error) == Refusal(
        "E200", "alder has no outcome table; add one."
    )
    log = (tmp_path / ".concors" / "client.log").read_text()
    assert "DataError: alder has no outcome table; add one." in log and CANARY not in log
    assert CANARY not in str(message.error)


def test_a_failure_without_a_site_still_answers(tmp_path: Path) -> None:
    assert Refusal.from_error(reply("foreign", tmp_path).error).code == "E900"


def test_a_reply_passes_unchanged(tmp_path: Path) -> None:
    assert reply("fine", make_site(tmp_path)).content["ok"]["yes"] == 1
