"""Which hospitals are there, and how to ask them something, for a bounded time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.config import Rounds
from protocol.errors import ConfigError, PayloadError, QuorumError
from protocol.payload import Answer, Refusal

__all__ = ["HELLO", "WALL_CLOCK", "Clock", "ask", "join", "require_quorum"]

HELLO = "query.hello"
POLL_S = 0.5
# A node that refused (its data are being mounted, its app is updating) is asked again after this.
RETRY_S = 10.0
# A reply that came in time is still there this long after the deadline, s, for the centre may have
# waited for another one until then.
GRACE_S = 300.0


@dataclass(frozen=True)
class Clock:
    """Where time comes from, so that a test need not wait: seconds now, and how to sleep."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


WALL_CLOCK = Clock()


def _push(grid: Grid, messages: list[Message]) -> list[str | None]:
    """Push messages and return one id (or None) for each, in their order."""
    ids = list(grid.push_messages(messages))
    if len(ids) != len(messages):
        raise QuorumError(
            f"Flower's server took {len(ids)} of {len(messages)} requests; the model may be too "
            "large for its limits, or a hospital has just left, so look at its log and resume."
        )
    return ids


def _outcome(message: Message) -> RecordDict | Refusal:
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
) -> Iterator[tuple[str, RecordDict | Refusal]]:
    """Ask hospitals and yield each one's reply or refusal, in the order of their names.

    The replies are pulled one at a time and in a fixed order, whatever the order in which they
    arrive: a fold over this iterator holds one reply and gives the same bytes each time. A hospital
    that is late delays those after it by nothing, as they work meanwhile; once the deadline has
    passed, each remaining one is looked at once more and not waited for.

    Parameters
    ----------
    nodes : mapping
        Node id by hospital name.
    request : RecordDict or callable
        The content for all, or a function from hospital name to its content.
    message_type : str
        E.g. ``"train.segment"``.
    rounds : Rounds
        ``deadline_s`` is the longest wait for all together. The messages live little longer, so
        that a hospital does not start on a request nobody waits for any more.
    group : str
        Flower's group id, shown in its logs: the round.

    Yields
    ------
    tuple of str and (RecordDict or Refusal)
        Code E501 for a hospital that did not reply in time, E502 for one whose app failed.

    Raises
    ------
    QuorumError
        If Flower's server did not take the requests.
    """
    sites, deadline_s = sorted(nodes), rounds.deadline_s
    messages = [
        Message(
            request(site) if callable(request) else request,
            nodes[site],
            message_type,
            ttl=deadline_s + GRACE_S,
            group_id=group,
        )
        for site in sites
    ]
    end = clock.now() + deadline_s
    ids = dict(zip(sites, _push(grid, messages), strict=True))
    # The requests hold the model; from here on only Flower may keep them.
    del messages, request
    for site in sites:
        yield site, _wait(grid, ids[site], end, deadline_s, clock)


def _wait(
    grid: Grid, message_id: str | None, end: float, deadline_s: float, clock: Clock
) -> RecordDict | Refusal:
    if message_id is None:
        return Refusal("E503", "Flower's server did not take the request; see its log.")
    while True:
        for message in grid.pull_messages([message_id]):
            return _outcome(message)
        remaining = end - clock.now()
        if remaining <= 0:
            return Refusal(
                "E501",
                f"No reply within {deadline_s:g} s; see whether the hospital's node is running, "
                "or raise rounds.deadline_s.",
            )
        clock.sleep(min(POLL_S, remaining))


def require_quorum(
    valid: Sequence[str], refused: Mapping[str, Refusal], quorum: float, what: str
) -> None:
    """Refuse to go on when too few hospitals gave a valid reply.

    Parameters
    ----------
    quorum : float
        Share of the asked hospitals that must be valid, in (0, 1].
    what : str
        What was asked, e.g. ``"Round 3 of segment"``.

    Raises
    ------
    QuorumError
        Naming each hospital that is out, with its code and sentence.
    """
    asked = len(valid) + len(refused)
    # The allowance lets 2 of 3 meet a quorum that was written as 0.667.
    if valid and len(valid) >= quorum * asked - 0.01:
        return
    reasons = "; ".join(f"{s}: {refused[s].code} {refused[s].sentence}" for s in sorted(refused))
    raise QuorumError(
        f"{what}: {len(valid)} of {asked} hospitals replied validly, expected a share of "
        f"{quorum:g} ({reasons}); mend this and resume."
    )


class _Joining:
    """Who has said hello so far."""

    def __init__(self, grid: Grid, wanted: Sequence[str], version: str | None) -> None:
        self.grid = grid
        self.wanted = tuple(wanted)
        self.version = version
        self.nodes: dict[str, int] = {}
        self.refusals: dict[int, Refusal] = {}
        self._pending: dict[int, str] = {}
        self._answered: set[int] = set()
        self._retry_at: dict[int, float] = {}

    def missing(self) -> list[str]:
        return [site for site in self.wanted if site not in self.nodes]

    def greet(self, now: float, ttl_s: float) -> None:
        """Send a hello to every node that has none under way."""
        for node_id in self.grid.get_node_ids():
            busy = node_id in self._pending or node_id in self._answered
            if busy or now < self._retry_at.get(node_id, now):
                continue
            message = Message(RecordDict(), node_id, HELLO, ttl=ttl_s, group_id="hello")
            for message_id in self.grid.push_messages([message]):
                if message_id is not None:
                    self._pending[node_id] = message_id

    def listen(self, now: float) -> None:
        """Take up what has been answered."""
        for node_id, message_id in list(self._pending.items()):
            for message in self.grid.pull_messages([message_id]):
                del self._pending[node_id]
                outcome = _outcome(message)
                if not isinstance(outcome, Refusal):
                    outcome = self._register(node_id, outcome)
                if isinstance(outcome, Refusal):
                    self.refusals[node_id] = outcome
                    self._retry_at[node_id] = now + RETRY_S
                else:
                    self.refusals.pop(node_id, None)
                    self._answered.add(node_id)

    def _register(self, node_id: int, records: RecordDict) -> Refusal | None:
        try:
            answer = Answer.from_records(records, f"The hello of node {node_id}").document
        except PayloadError as error:
            return Refusal.of(error)
        site, version = answer.get("site"), answer.get("version")
        if not isinstance(site, str) or site not in self.wanted:
            return None
        if self.version is not None and version != self.version:
            return Refusal(
                "E504", f"{site} runs another version than {self.version}; install that one there."
            )
        if site in self.nodes:
            raise ConfigError(
                f"Two nodes call themselves {site}; give each hospital its own name and start "
                "only one node for each."
            )
        self.nodes[site] = node_id
        return None


def join(
    grid: Grid,
    wanted: Sequence[str],
    join_s: float,
    *,
    version: str | None = None,
    on_joined: Callable[[str], None] | None = None,
    clock: Clock = WALL_CLOCK,
) -> dict[str, int]:
    """Wait until every wanted hospital has said who it is, but no longer than ``join_s``.

    The hello carries nothing: nodes that are not part of the study get it too. Its answer is
    ``{"site": name, "version": version of the code}``.

    Parameters
    ----------
    wanted : sequence of str
        Names of the hospitals.
    join_s : float
        Longest wait, s.
    version : str, optional
        Version every hospital must run.
    on_joined : callable, optional
        Called with the name of each hospital once it has said who it is.

    Returns
    -------
    dict
        Node id by hospital name, in the order of ``wanted``.

    Raises
    ------
    QuorumError
        Naming the hospitals that are missing, and why nodes refused, when the time is over.
    ConfigError
        If two nodes give the same name.
    """
    joining = _Joining(grid, wanted, version)
    end = clock.now() + join_s
    while True:
        now = clock.now()
        joining.greet(now, max(end - now, 1.0))
        waited_for = joining.missing()
        joining.listen(now)
        missing = joining.missing()
        if on_joined is not None:
            for site in sorted(set(waited_for) - set(missing)):
                on_joined(site)
        if not missing:
            return {site: joining.nodes[site] for site in joining.wanted}
        remaining = end - clock.now()
        if remaining <= 0:
            break
        clock.sleep(min(POLL_S, remaining))
    reasons = "".join(
        f"; node {node_id} said {refusal.code} {refusal.sentence}"
        for node_id, refusal in sorted(joining.refusals.items())
    )
    raise QuorumError(
        f"{', '.join(missing)} did not join within {join_s:g} s{reasons}; start concors-client "
        "there, or raise rounds.join_s."
    )
