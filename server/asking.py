"""How to ask hospitals something, for a bounded time, and again when one has forgotten it."""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.config import Rounds
from protocol.errors import QuorumError
from protocol.payload import Refusal
from server.patience import bounded_pulls

__all__ = ["POLL_S", "WALL_CLOCK", "Clock", "activations", "ask", "outcome_of"]

POLL_S = 0.125
# Between two looks at which nodes were started anew, s.
RENEW_S = 2.0
# A reply that came in time is still there this long after the deadline, s, for the centre may have
# waited for another one until then.
GRACE_S = 300.0
# Flower's own failures in which the request or the reply was lost on the way: expired or unread,
# expired or unfinished, no node there.
LOST = frozenset({3, 4, 5})


@dataclass(frozen=True)
class Clock:
    """Where time comes from, so that a test need not wait: seconds now, and how to sleep."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


WALL_CLOCK = Clock()


def activations(grid: Grid) -> dict[int, str]:
    """Return when each connected node was last started, as Flower writes it ("" if it does not)."""
    return {node.node_id: node.last_activated_at for node in grid.get_nodes()}


def outcome_of(message: Message) -> RecordDict | Refusal:
    """Return the content of a reply, or the refusal that it stands for."""
    if message.has_error():
        return Refusal.from_error(message.error)
    return message.content


def ask(
    grid: Grid,
    nodes: Mapping[str, int],
    request: RecordDict | Callable[[str], RecordDict],
    message_type: str,
    rounds: Rounds,
    *,
    group: str = "",
    clock: Clock = WALL_CLOCK,
    late: MutableMapping[str, str] | None = None,
) -> Iterator[tuple[str, RecordDict | Refusal]]:
    """Ask hospitals and yield each one's reply or refusal, in the order of their names.

    The replies are pulled one at a time and in a fixed order, whatever the order in which they
    arrive: a fold over this iterator gives the same bytes each time. A hospital
    that is late delays those after it by nothing, as they work meanwhile; once the deadline has
    passed, each remaining one is looked at once more and not waited for.

    A node that was started anew has forgotten what it was asked (Flower delivers a message once),
    so it is asked again; a hospital keeps its replies, and what it had done already costs it
    nothing.

    Parameters
    ----------
    nodes : mapping
        Node id by hospital name.
    request : RecordDict or callable
        The content for all, or a function from hospital name to its content.
    message_type : str
        E.g. ``"train.segment"``.
    rounds : Rounds
        ``deadline_s`` is the longest wait for all together, ``rejoin_s`` that for a hospital whose
        node has gone. The messages live little longer than the deadline, so that a hospital does
        not start on a request nobody waits for any more.
    group : str
        Flower's group id, shown in its logs: the round.
    late : mutable mapping, optional
        Requests of earlier calls that are still unanswered, by hospital; kept up to date. Such a
        hospital is at work on what nobody waits for, and is not asked until it has done with it.

    Yields
    ------
    tuple of str and (RecordDict or Refusal)
        Code E501 for a hospital that did not reply in time, E502 for one whose app failed or whose
        node stayed away, E505 for one that is still at work on an earlier request.

    Raises
    ------
    QuorumError
        If Flower's server did not take the requests.
    """
    late = {} if late is None else late
    busy = {site for site in nodes if site in late and not _done(grid, late[site])}
    for site in nodes.keys() - busy:
        late.pop(site, None)
    asking = _Asking(grid, nodes, request, message_type, rounds, group, clock)
    asking.send(sorted(nodes.keys() - busy))
    # The request holds the model; from here on only those who ask again and Flower keep it.
    del request
    for site in sorted(nodes):
        if site in busy:
            yield (
                site,
                Refusal(
                    "E505",
                    "It is still at work on an earlier request, so it was not asked; if this goes "
                    "on, raise rounds.deadline_s or give its client more time.",
                ),
            )
            continue
        # No name for the reply here: whoever takes it must be able to let go of it.
        yield site, asking.wait(site, late)


def _done(grid: Grid, message_id: str) -> bool:
    """Say whether a late request has had its reply, which came too late and is dropped."""
    with bounded_pulls(0.0):
        return any(True for _ in grid.pull_messages([message_id]))


@dataclass
class _Asking:
    """The requests of one call that are under way."""

    grid: Grid
    nodes: Mapping[str, int]
    request: RecordDict | Callable[[str], RecordDict]
    message_type: str
    rounds: Rounds
    group: str
    clock: Clock
    ids: dict[str, str] = field(default_factory=dict)
    end: float = 0.0
    _since: dict[str, str] = field(default_factory=dict)
    _gone_at: dict[str, float] = field(default_factory=dict)
    _answered: set[str] = field(default_factory=set)
    _started: Mapping[int, str] = field(default_factory=dict)
    _looked_at: float = 0.0

    def send(self, sites: list[str]) -> None:
        """Ask some hospitals for the first time; the time runs from here."""
        now = self.clock.now()
        self.end, self._looked_at = now + self.rounds.deadline_s, now
        if sites:
            self._started = activations(self.grid)
            self._push(sites)

    def wait(self, site: str, late: MutableMapping[str, str]) -> RecordDict | Refusal:
        """Return the reply of a hospital, or why there is none; note who is late."""
        while True:
            now = self.clock.now()
            if not self.ids[site] and site not in self._gone_at:
                return Refusal("E503", "Flower's server did not take the request; see its log.")
            outcome = self._pull(site, self.end - now)
            if outcome is not None:
                return outcome
            if self._away_too_long(site, now):
                return Refusal(
                    "E502",
                    "The hospital did not reply because its node is not connected, or lost the "
                    f"request, and was not back within {self.rounds.rejoin_s:g} s; see its log.",
                )
            if now >= self.end:
                if self.ids[site]:
                    late[site] = self.ids[site]
                return Refusal(
                    "E501",
                    f"No reply within {self.rounds.deadline_s:g} s; see whether the hospital's "
                    "node is running, or raise rounds.deadline_s.",
                )
            self._renew(now)
            self.clock.sleep(min(POLL_S, max(self.end - now, 0.0)))

    def _pull(self, site: str, remaining_s: float) -> RecordDict | Refusal | None:
        if not self.ids[site]:
            return None
        with bounded_pulls(remaining_s, lambda: self._forgotten(site)):
            for message in self.grid.pull_messages([self.ids[site]]):
                if message.has_error() and message.error.code in LOST:
                    self.ids[site] = ""
                    self._gone_at[site] = self.clock.now()
                    return None
                self._answered.add(site)
                return outcome_of(message)
        return None

    def _forgotten(self, site: str) -> bool:
        """Say whether a node was started anew since it was asked; looked up now and then."""
        now = self.clock.now()
        if now >= self._looked_at + RENEW_S:
            self._looked_at = now
            self._started = activations(self.grid)
        return self._started.get(self.nodes[site], self._since[site]) != self._since[site]

    def _away_too_long(self, site: str, now: float) -> bool:
        gone_at = self._gone_at.get(site)
        return gone_at is not None and now >= gone_at + min(
            self.rounds.rejoin_s, self.rounds.deadline_s
        )

    def _renew(self, now: float) -> None:
        """Ask those again whose nodes have forgotten, or lost, what they were asked."""
        if now < self._looked_at + RENEW_S:
            return
        self._looked_at = now
        self._started = activations(self.grid)
        forgot = [
            site
            for site in self.ids.keys() - self._answered
            if (at := self._started.get(self.nodes[site])) is not None
            and (site in self._gone_at or at != self._since[site])
        ]
        if forgot:
            self._push(sorted(forgot))

    def _push(self, sites: list[str]) -> None:
        messages = [
            Message(
                self.request(site) if callable(self.request) else self.request,
                self.nodes[site],
                self.message_type,
                ttl=max(self.end - self.clock.now(), 0.0) + GRACE_S,
                group_id=self.group,
            )
            for site in sites
        ]
        ids = list(self.grid.push_messages(messages))
        if len(ids) != len(messages):
            raise QuorumError(
                f"Flower's server took {len(ids)} of {len(messages)} requests; the model may be "
                "too large for its limits, or a hospital has just left, so look at its log and "
                "resume."
            )
        for site, message_id in zip(sites, ids, strict=True):
            self.ids[site] = message_id or ""
            self._since[site] = self._started.get(self.nodes[site], "")
            self._gone_at.pop(site, None)
