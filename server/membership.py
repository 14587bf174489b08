"""The SuperLink's list of nodes made equal to the folder of hospitals."""

from collections.abc import Mapping

from deployment.control import Control, Node
from server.admission import Hospital

__all__ = ["align", "node_of"]

UNREGISTERED = "unregistered"


def node_of(hospital: Hospital, nodes: list[Node]) -> Node | None:
    """Return a hospital's node, as far as the SuperLink knows one."""
    key = hospital.node_key.encode()
    return next(
        (n for n in nodes if n.public_pem == key and n.status != UNREGISTERED),
        None,
    )


def align(control: Control, hospitals: Mapping[str, Hospital], nodes: list[Node]) -> bool:
    """Register the members that are not, and exclude every other node.

    A node that nobody admitted is excluded as well, whoever registered it.

    Returns
    -------
    bool
        Whether something had to be done.
    """
    members = {each.node_key.encode(): each for each in hospitals.values() if each.is_member}
    present = {node.public_pem for node in nodes if node.status != UNREGISTERED}
    strangers = [n for n in nodes if n.status != UNREGISTERED and n.public_pem not in members]
    for node in strangers:
        control.unregister(node.node_id)
    missing = [each for key, each in members.items() if key not in present]
    for hospital in missing:
        control.register(hospital.node_key.encode(), hospital.name)
    return bool(strangers or missing)
