"""What a hospital's node survives: whatever is raised between it and its SuperNode."""

import logging
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from client.node import gatekeeper, supervisor
from protocol.errors import PaperError


def _loses(monkeypatch: pytest.MonkeyPatch, losses: list[BaseException]) -> list[float]:
    pauses: list[float] = []

    def lose(*_: object) -> None:
        raise losses.pop(0)

    monkeypatch.setattr(supervisor, "_one_connection", lose)
    monkeypatch.setattr(supervisor.time, "sleep", pauses.append)
    return pauses


def test_a_node_goes_on_whatever_its_connection_ends_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(Exception):
        pass

    losses = [
        supervisor._NodeLost("it ended"),
        httpx.ConnectError("away"),
        ObjectPullError("a", "gone"),
        Strange(),
        supervisor._Stop(),
    ]
    pauses = _loses(monkeypatch, losses)
    with pytest.raises(supervisor._Stop), caplog.at_level(logging.WARNING):
        supervisor._for_ever(Path("site"), cast(Any, None))
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert len(caplog.records) == 4


def test_a_node_whose_papers_are_not_valid_ends_with_the_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = _loses(monkeypatch, [PaperError("The welcome has expired; ask for another.")])
    with pytest.raises(PaperError):
        supervisor._for_ever(Path("site"), cast(Any, None))
    assert pauses == []


def test_a_reply_whose_run_has_ended_is_dropped_and_the_task_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    closed: list[str] = []

    def refuse(*_: object) -> None:
        raise ObjectPushError("a", 1, "s")

    monkeypatch.setattr(gatekeeper, "push_message", refuse)
    monkeypatch.setattr(gatekeeper, "push_task_output", lambda *given: closed.append(given[2]))
    asked = Message(RecordDict(), 7, "query.survey")
    for reply in (asked, Message(Error(1, "no"), reply_to=asked)):
        gatekeeper._hand_back(cast(Any, None), reply, cast(Context, None))
    assert closed == [SubStatus.FAILED, SubStatus.FAILED]
