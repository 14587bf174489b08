"""A hospital's logs only ever grow; whatever else they do is told, once, at once."""

import pytest

from protocol.audit import START, Head
from protocol.custody import Heads
from protocol.errors import PayloadError
from server.heads import KnownHeads


def log(count: int, mark: str = "a") -> Head:
    return Head(count, START if count == 0 else f"{mark}{count}".rjust(64, "0"))


def heads(count: int, ledger: Head | None = None, mark: str = "a") -> Heads:
    return Heads(log(count, mark), ledger)


class Talk:
    """Requests and replies of one hospital, and the lines a run would write of them."""

    def __init__(self) -> None:
        self.known, self.lines, self.count = KnownHeads(), list[dict[str, object]](), 0

    def _line(self, event: str, **detail: object) -> None:
        self.lines.append({"event": event, "index": len(self.lines), "detail": detail})

    def ask(self, request: str = "") -> str:
        self.count += 1
        request = request or f"r{self.count}"
        self.known.asked("alder", request)
        self._line("sent", site="alder", request=request)
        return request

    def hear(self, request: str, told: Heads) -> list[tuple[str, str]]:
        self._line("received", site="alder", request=request, heads=told.to_dict())
        return [(b.which, b.how) for b in self.known.told("alder", request, told)]

    def say(self, told: Heads) -> list[tuple[str, str]]:
        return self.hear(self.ask(), told)


def test_logs_that_grow_are_fine() -> None:
    talk = Talk()
    for step in range(1, 20):
        ledger = None if step < 5 else log(step * 2, "c")
        assert talk.say(heads(step * 3, ledger)) == []
    # A question of another consortium may have come in between, or none.
    assert talk.say(heads(57 + 1, log(38, "c"))) == []


def test_a_log_that_was_put_back_is_told_once() -> None:
    talk = Talk()
    talk.say(heads(9))
    assert talk.say(heads(5, mark="b")) == [("audit log", "went back")]
    assert talk.say(heads(6, mark="b")) == []
    assert talk.say(heads(5, mark="b")) == [("audit log", "went back")]


def test_another_line_of_the_same_number_is_told() -> None:
    talk = Talk()
    talk.say(heads(9))
    talk.say(heads(10))
    assert talk.say(heads(10, mark="b")) == [("audit log", "contradicts itself")]


def test_a_ledger_that_is_gone_together_with_its_head_file_is_told() -> None:
    talk = Talk()
    talk.say(heads(1, log(4, "c")))
    assert talk.say(heads(2, None)) == [("privacy ledger", "went back")]
    talk = Talk()
    talk.say(heads(1, log(4, "c")))
    assert talk.say(heads(2, log(2, "c"))) == [("privacy ledger", "went back")]
    assert Talk().say(heads(2, log(0))) == []


def test_both_logs_may_break_at_once() -> None:
    talk = Talk()
    talk.say(heads(8, log(4, "c")))
    both = [("audit log", "went back"), ("privacy ledger", "contradicts itself")]
    assert talk.say(heads(1, log(4, "d"))) == both


def test_a_kept_reply_that_comes_again_is_no_break() -> None:
    talk = Talk()
    talk.say(heads(3))
    request = talk.ask()
    # The reply (line 4) was lost; two more questions; then the same request, and the kept reply.
    assert talk.say(heads(5)) == []
    assert talk.say(heads(6)) == []
    assert talk.hear(talk.ask(request), heads(4)) == []
    # An old reply to a new request is one.
    assert talk.hear(talk.ask(), heads(4)) == [("audit log", "went back")]


def test_hospitals_are_judged_each_alone() -> None:
    known = KnownHeads()
    known.asked("alder", "r")
    known.asked("birch", "r")
    assert known.told("alder", "r", heads(9)) == []
    assert known.told("birch", "r", heads(2, mark="b")) == []
    assert known.newest("birch")["audit log"] == log(2, "b")


@pytest.mark.parametrize("cut", range(12))
def test_a_resumed_run_knows_what_the_run_knew(cut: int) -> None:
    told = [heads(3), heads(5, log(1, "c")), heads(2, log(2, "c"), "b"), heads(3, None, "b")]
    whole = Talk()
    expected = [whole.say(each) for each in told] + [whole.say(heads(4, log(2, "d"), "b"))]
    assert expected[2:] == [
        [("audit log", "went back")],
        [("privacy ledger", "went back")],
        [],
    ]
    resumed = Talk()
    found = []
    for index, each in enumerate([*told, heads(4, log(2, "d"), "b")]):
        for moment in (2 * index, 2 * index + 1):
            if moment == cut:
                resumed.known = KnownHeads.of(resumed.lines)
            if moment % 2 == 0:
                request = resumed.ask()
        found.append(resumed.hear(request, each))
    assert found == expected


def test_a_line_of_another_version_is_refused() -> None:
    with pytest.raises(PayloadError, match="line 1 of the audit log is of another version"):
        KnownHeads.of([{"event": "sent", "index": 0, "detail": {}}])
