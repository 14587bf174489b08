"""Which hospitals are there, and how to ask them something, for a bounded time."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.errors import ConfigError, PayloadError, QuorumError
from protocol.payload import Answer, Refusal
from server.asking import POLL_S, WALL_CLOCK, Clock, activations, outcome_of

__all__ = ["HELLO", "join", "require_quorum"]

HELLO = "query.hello"
# A node that refused (its data are being mounted, its app is updating) is asked again after this.
RETRY_S = 10.0


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
        # Message id of a hello under way, and when its node had been started by then.
        self._pending: dict[int, tuple[str, str]] = {}
        self._answered: set[int] = set()
        self._retry_at: dict[int, float] = {}

    def missing(self) -> list[str]:
        return [site for site in self.wanted if site not in self.nodes]

    def greet(self, now: float, ttl_s: float) -> None:
        """Send a hello to every node that has none under way."""
        for node_id, started in activations(self.grid).items():
            # A node that was started anew has forgotten the hello it was sent before.
            pending = self._pending.get(node_id, ("", None))[1] == started
            busy = pending or node_id in self._answered
            if busy or now < self._retry_at.get(node_id, now):
                continue
            message = Message(RecordDict(), node_id, HELLO, ttl=ttl_s, group_id="hello")
            for message_id in self.grid.push_messages([message]):
                if message_id:
                    self._pending[node_id] = (message_id, started)

    def listen(self, now: float) -> None:
        """Take up what has been answered."""
        for node_id, (message_id, _) in list(self._pending.items()):
            for message in self.grid.pull_messages([message_id]):
                del self._pending[node_id]
                outcome = outcome_of(message)
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
        joining.listen(now)
        missing = joining.missing()
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
