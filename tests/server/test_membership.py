"""The SuperLink's nodes follow the folder of hospitals, whoever else was registered."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployment.certificates import new_key
from deployment.control import Node
from deployment.papers import make_request
from server.admission import admit, hospitals, revoke
from server.consortium import Settings
from server.founding import create
from server.membership import align, node_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Registry:
    """The part of the control interface that registers, as a list."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def register(self, public_pem: bytes, name: str) -> int:
        self.nodes.append(Node(len(self.nodes), name, public_pem, "registered", ""))
        return len(self.nodes) - 1

    def unregister(self, node_id: int) -> None:
        old = self.nodes[node_id]
        self.nodes[node_id] = Node(node_id, old.name, old.public_pem, "unregistered", "")

    def members(self) -> list[str]:
        return [node.name for node in self.nodes if node.status != "unregistered"]


def test_nodes_follow_the_folder(tmp_path: Path) -> None:
    consortium = create(tmp_path / "c", Settings(name="c", address="a:1"), now=NOW)
    registry = Registry()
    control: Any = registry

    def admit_one(name: str, replace: bool = False) -> None:
        request = make_request(name, new_key(), version="0.1.0", now=NOW)
        admit(consortium, request, replace_key=replace, now=NOW)

    def aligned() -> bool:
        return align(control, hospitals(consortium), list(registry.nodes))

    admit_one("alder")
    admit_one("birch")
    assert aligned()
    assert registry.members() == ["alder", "birch"]
    assert not aligned()
    registry.register(b"somebody else", "rogue")
    assert aligned()
    assert registry.members() == ["alder", "birch"]
    old = hospitals(consortium)["alder"]
    admit_one("alder", replace=True)
    assert aligned()
    assert registry.members() == ["birch", "alder"]
    assert node_of(old, registry.nodes) is None
    assert node_of(hospitals(consortium)["alder"], registry.nodes) == registry.nodes[3]
    revoke(consortium, "birch", now=NOW)
    assert aligned()
    assert registry.members() == ["alder"]
    assert not aligned()
