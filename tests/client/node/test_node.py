"""A node in real processes: whatever its worker does, the next message is served."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from client.manifests import decide, known
from client.node.preflight import preflight
from deployment.flower import ONE_AT_A_TIME

pytestmark = pytest.mark.slow


class Pair:
    """Two hospitals: one is told to misbehave, the other is asked at the same time."""

    def __init__(self, harness: ModuleType, federation: Any, bad: Any, good: Any) -> None:
        self.harness = harness
        self.federation = federation
        self.bad = bad
        self.good = good
        self.count = 0

    @property
    def calls(self) -> int:
        """How often the bad one's app was called."""
        file = self.bad.site / "calls"
        return len(file.read_text()) if file.exists() else 0

    def ask(self, document: dict[str, Any], **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask both; return the replies of the bad one, which did as told, and of the good one."""
        self.count += 1
        first = self.federation.ask("bad", "train", {**document, "n": self.count}, **more)
        second = self.federation.ask("good", "train", {"do": "add", "n": self.count})
        good = self.federation.reply(second)
        assert good["document"]["site"] == "good"
        return self.federation.reply(first), good

    def serves_again(self) -> None:
        """Make sure that the next message finds both at work."""
        bad, _ = self.ask({"do": "add"})
        assert bad["document"]["site"] == "bad"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, harness: ModuleType) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("federation")
    sites = [harness.make_site(directory / name) for name in ("bad", "good")]
    with harness.running_federation(directory) as federation:
        for site in sites:
            federation.admit(site)
        pair = Pair(harness, federation, *(harness.troublesome(site) for site in sites))
        try:
            federation.control.wait_for_nodes(2, 120)
            yield pair
        finally:
            codes = [node.stop() for node in (pair.bad, pair.good)]
        assert codes == [0, 0]


def test_worker_stays_warm_and_the_bundles_code_never_runs(pair: Pair) -> None:
    first, second = pair.ask({"do": "add"})[0], pair.ask({"do": "add"})[0]
    assert first["document"]["pid"] == second["document"]["pid"]
    home = pair.bad.site.parent / "bad-home"
    assert not list(home.rglob("evil*"))
    node = pair.bad.site / ".concors" / "node"
    assert not list(node.rglob("evil*"))
    assert node.stat().st_mode & 0o777 == 0o700
    assert (node / "node.secret").stat().st_mode & 0o777 == 0o600
    # On the way to the server one piece at a time, or none of them arrives over a slow line.
    (supernode,) = _children(pair.bad.process.pid, "client.node.supernode")
    variables = Path(f"/proc/{supernode}/environ").read_bytes().split(b"\0")
    assert {f"{name}={value}".encode() for name, value in ONE_AT_A_TIME.items()} <= set(variables)


def test_what_a_client_raises_leaves_as_a_sentence_of_ours(pair: Pair) -> None:
    bad, _ = pair.ask({"do": "raise"})
    outside = pair.federation.told("bad", "query.outside", {"n": 1})
    unknown = pair.federation.told("bad", "query.nothing", {"n": 1})
    assert [reply["code"] for reply in (bad, outside, unknown)] == [900, 900, 900]
    assert "JANE" not in json.dumps([bad, outside, unknown])
    pair.serves_again()


def test_killed_worker_spoils_nobodys_round(pair: Pair) -> None:
    bad, _ = pair.ask({"do": "kill", "times": 9})
    assert bad["code"] == 830
    assert "killed or ran out of memory" in bad["reason"]
    pair.serves_again()


def test_hanging_worker_is_replaced_within_the_messages_own_time(pair: Pair) -> None:
    calls = pair.calls
    bad, _ = pair.ask({"do": "sleep", "s": 600}, ttl=12.0)
    assert bad["code"] == 830
    assert "had not answered after" in bad["reason"]
    # Not tried again: it would hang again.
    assert pair.calls == calls + 1
    pair.serves_again()


def test_lost_nodes_come_back_at_once_and_nothing_of_them_is_left(pair: Pair) -> None:
    (pair.bad.site / "sleeping").unlink(missing_ok=True)
    calls = pair.calls
    study = pair.federation.approve(pair.bad.site, 1)
    asked = {"do": "sleep", "s": 4, "n": 1000, "study": study}
    pair.federation.ask("bad", "train", asked)
    pair.harness.wait_for(pair.bad.site / "sleeping")
    # One loses its SuperNode in the middle of its work, the other one is killed as a whole.
    (supernode,) = _children(pair.bad.process.pid, "client.node.supernode")
    os.kill(supernode, signal.SIGKILL)
    children = _children(pair.good.process.pid)
    assert len(children) >= 3  # SuperNode, worker, and the undertakers
    pair.good.process.kill()
    pair.good.process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    pair.good = pair.harness.troublesome(pair.good.site)
    # The work that was under way went on, and is not done again.
    assert _until_it_is_back(pair, "bad", asked)["document"]["calls"] == calls + 1
    assert _until_it_is_back(pair, "good", {"do": "add"})["document"]["site"] == "good"
    pair.serves_again()


def test_the_same_request_is_computed_once(pair: Pair) -> None:
    one, two = (pair.federation.approve(pair.bad.site, seed) for seed in (1, 2))
    asked = {"do": "add", "n": 2000, "study": one}
    first, second = (pair.federation.told("bad", "train", asked) for _ in range(2))
    assert first == second
    other = pair.federation.told("bad", "train", {**asked, "study": two})
    assert other["document"]["calls"] == first["document"]["calls"] + 1
    # What was kept is no way around a decision that was taken back.
    decide(pair.bad.site, known(pair.bad.site)[0].study_hash, "declined")
    third = pair.federation.told("bad", "train", asked)
    assert third["document"]["calls"] == other["document"]["calls"] + 1


def test_preflight_finds_all_well_but_a_server_with_open_doors(pair: Pair) -> None:
    lines = {line.what: line for line in preflight(pair.bad.site)}
    # This SuperLink stands in the open, as concors-server's does not, and its authority ends soon.
    assert {what for what, line in lines.items() if not line.good} == {"doors", "authority"}
    assert lines["clock"].good


def _until_it_is_back(pair: Pair, site: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask as the server does, which asks the same again when a node was started anew."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        told = pair.federation.told(site, "train", asked)
        if "document" in told:
            return told
        time.sleep(1)
    raise AssertionError(told)


def _children(pid: int, part: str = "") -> list[int]:
    """Return the children of a process whose command line holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and part in path.with_name("cmdline").read_text():
                found.append(int(path.parent.name))
    return found
