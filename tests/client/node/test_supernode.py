from importlib import import_module

import pytest

from client.node.supernode import HEARTBEAT_S, IDLE_S, LOOK_S, REPLY_S, Pauses


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_rests_are_short_while_a_study_runs_and_long_between_studies() -> None:
    clock = _Clock()
    pauses = Pauses(clock.sleep, lambda: clock.now)
    pauses.sleep(3)
    pauses.sleep(0.5)
    clock.now += IDLE_S + 1
    pauses.sleep(3)
    pauses.sleep(0.5)
    pauses.sleep(3)
    assert clock.slept == [LOOK_S, REPLY_S, 3, REPLY_S, LOOK_S]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("flwr.supernode.fleet_http_connection", "HEARTBEAT_DEFAULT_INTERVAL"),
        ("flwr.supercore.heartbeat", "HEARTBEAT_DEFAULT_INTERVAL"),
        ("flwr.supernode.start_client_internal", "time"),
        ("flwr.supernode.start_client_internal", "_pull_and_store_message"),
        ("flwr.supernode.start_client_internal", "_push_messages"),
        ("flwr.supercore.retry.http_retry", "MAX_RETRY_DELAY"),
    ],
)
def test_what_is_set_in_flower_is_there_to_be_set(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)
    assert import_module("flwr.common.constant").HEARTBEAT_MIN_INTERVAL <= HEARTBEAT_S
