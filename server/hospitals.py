"""Which hospitals are there, found within a bounded time, and whether enough of them answered."""

from collections.abc import Callable, Mapping, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.errors import ConfigError, PayloadError, QuorumError
from protocol.manifest_message import MANIFEST, pack
from protocol.payload import Answer, Refusal
from server.approval import decision_of
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

    def __init__(
        self, grid: Grid, wanted: Sequence[str], version: str | None, manifest: str | None
    ) -> None:
        self.grid = grid
        self.wanted = tuple(wanted)
        self.version = version
        self.manifest = manifest
        self.nodes: dict[str, int] = {}
        self.refusals: dict[int, Refusal] = {}
        self.approvals: dict[str, str] = {}
        # Hospitals that said hello and were then asked for their decision on the manifest.
        self._deciding: dict[int, str] = {}
        # Message id of what is under way, and when its node had been started by then.
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
            self._pending.pop(node_id, None)
            self._deciding.pop(node_id, None)
            message = Message(RecordDict(), node_id, HELLO, ttl=ttl_s, group_id="hello")
            self._send(message, started)

    def _send(self, message: Message, started: str) -> bool:
        """Send a message; return whether Flower took it."""
        for message_id in self.grid.push_messages([message]):
            if message_id:
                self._pending[message.metadata.dst_node_id] = (message_id, started)
                return True
        return False

    def listen(self, now: float, ttl_s: float) -> None:
        """Take up what has been answered; whoever is wanted is then asked to decide."""
        for node_id, (message_id, started) in list(self._pending.items()):
            for message in self.grid.pull_messages([message_id]):
                del self._pending[node_id]
                outcome = self._take_up(node_id, outcome_of(message))
                if outcome is None and node_id in self._deciding and self.manifest is not None:
                    paper = pack(self.manifest)
                    asked = Message(paper, node_id, MANIFEST, ttl=ttl_s, group_id="hello")
                    self._send(asked, started)
                elif isinstance(outcome, Refusal):
                    self.refusals[node_id] = outcome
                    self._retry_at[node_id] = now + RETRY_S
                else:
                    self.refusals.pop(node_id, None)
                    self._answered.add(node_id)

    def _take_up(self, node_id: int, outcome: RecordDict | Refusal) -> Refusal | None:
        """Take up a node's decision or hello."""
        site = self._deciding.pop(node_id, None)
        if site is not None:
            refusal = decision_of(outcome, site)
            self.approvals[site] = (
                "approved" if refusal is None else f"{refusal.code} {refusal.sentence}"
            )
            if refusal is None:
                self._count(site, node_id)
            return refusal
        return outcome if isinstance(outcome, Refusal) else self._register(node_id, outcome)

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
        if self.manifest is None:
            self._count(site, node_id)
        else:
            self._deciding[node_id] = site
        return None

    def _count(self, site: str, node_id: int) -> None:
        if site in self.nodes:
            raise ConfigError(
                f"Two nodes call themselves {site}; give each hospital its own name and start "
                "only one node for each."
            )
        self.nodes[site] = node_id


def join(
    grid: Grid,
    wanted: Sequence[str],
    join_s: float,
    *,
    version: str | None = None,
    manifest: str | None = None,
    note: Callable[[dict[str, str]], None] = lambda _: None,
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
    manifest : str, optional
        Text of the run's manifest, which a hospital must approve before it counts as joined.
    note : callable
        Told, whenever it changes, what each hospital said to the manifest.
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
    joining = _Joining(grid, wanted, version, manifest)
    noted: dict[str, str] = {}
    end = clock.now() + join_s
    while True:
        now = clock.now()
        ttl_s = max(end - now, 1.0)
        joining.greet(now, ttl_s)
        waited_for = joining.missing()
        joining.listen(now, ttl_s)
        if joining.approvals != noted:
            noted = dict(joining.approvals)
            note(noted)
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
