"""What can be done from a hospital's place in the network: with the authority's certificate alone,
with a key that was not admitted, with one that was revoked, and past a certificate that is wrong.
"""

import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from deployment.certificates import certificate_pem, make_authority, new_key
from deployment.control import Control
from deployment.flower import HOST, environment, no_proxy
from deployment.node_keys import public_pem
from deployment.papers import fingerprint_of, make_request
from protocol.errors import ConfigError
from server.admission import admit, revoke
from server.consortium import Consortium, split_address
from server.founding import renew
from server.supervisor import supervise

pytestmark = pytest.mark.slow
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def _load(name: str) -> ModuleType:
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deployed = _load("deployed_example")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    consortium = deployed.new_consortium(tmp_path_factory.mktemp("outsiders") / "c")
    with deployed.served(consortium) as served:
        served.wait_until_up()
        yield served


class Caller:
    """Somebody who calls the server, with or without a node key."""

    def __init__(self, consortium: Consortium, key: Any = None) -> None:
        self.base = f"https://{consortium.settings.address}"
        self.verify = ssl.create_default_context(cafile=str(consortium.authority))
        self.sign = None if key is None else NodeAuthHttpInterceptor(key, key.public_key())

    def post(self, path: str, message: Any) -> httpx.Response:
        request = httpx.Request(
            "POST",
            self.base + path,
            content=message.SerializeToString(),
            headers={"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE},
        )
        with httpx.Client(verify=self.verify, trust_env=False) as client:
            if self.sign is None:
                return client.send(request)
            context: Any = type("Context", (), {"request": request})()
            return self.sign.intercept(context, lambda _: client.send(request))


def noted(consortium: Consortium, **expected: object) -> bool:
    """Whether the newest request is noted so; it is written once the answer is on its way."""

    def is_newest() -> bool:
        lines = consortium.access_log.read_text().splitlines()
        line = json.loads(lines[-1]) if lines else {}
        return bool(line | expected == line)

    deployed.wait_until(is_newest, 20)
    return True


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/runtime/acquire-task", AcquireTaskRequest(supported_task_types=["flwr-serverapp"])),
        ("/v1/control/register-node", RegisterNodeRequest(public_key=public_pem(new_key()))),
        ("/v1/control/unregister-node", UnregisterNodeRequest(node_id=1)),
        ("/v1/control/list-nodes", ListNodesRequest()),
        ("/v1/control/start-run", StartRunRequest()),
        ("/docs", ListNodesRequest()),
    ],
)
def test_a_stranger_reaches_only_the_fleet_and_is_noted(
    server: Any, path: str, message: Any
) -> None:
    reply = Caller(server.consortium).post(path, message)
    assert (reply.status_code, reply.content) == (403, b"")
    assert noted(server.consortium, path=path, status=403, ip=HOST, key="")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/fleet/get-fab", GetFabRequest(run_id=1, hash_str="0" * 64)),
        ("/v1/fleet/pull-messages", PullMessagesRequest()),
    ],
)
def test_at_the_fleet_a_key_that_was_not_admitted_gets_nothing(
    server: Any, path: str, message: Any, known: bool
) -> None:
    key = new_key() if known else None
    reply = Caller(server.consortium, key).post(path, message)
    assert reply.status_code == 401
    shown = fingerprint_of(public_pem(key).decode()) if key else ""
    assert noted(server.consortium, path=path, status=401, key=shown)


def test_a_key_cannot_register_itself(server: Any) -> None:
    key, request = new_key(), RegisterNodeFleetRequest()
    request.public_key = public_pem(key)
    reply = Caller(server.consortium, key).post("/v1/fleet/register-node", request)
    assert 400 <= reply.status_code < 500
    activate = ActivateNodeRequest(public_key=public_pem(key), heartbeat_interval=30)
    reply = Caller(server.consortium, key).post("/v1/fleet/activate-node", activate)
    assert 400 <= reply.status_code < 500


def activation(consortium: Consortium, key: Any) -> int:
    request = ActivateNodeRequest(public_key=public_pem(key), heartbeat_interval=30)
    return Caller(consortium, key).post("/v1/fleet/activate-node", request).status_code


def test_admitted_while_running_back_at_once_after_a_kill_and_cut_off_when_revoked(
    server: Any,
) -> None:
    consortium, key = server.consortium, new_key()
    assert activation(consortium, key) != 200
    request = make_request("alder", key, version="0.1.0", now=NOW)
    admit(consortium, request, replace_key=False, now=NOW)
    deployed.wait_until(lambda: activation(consortium, key) == 200)
    # A node that was killed did not say goodbye; Flower itself would refuse it for a minute.
    assert activation(consortium, key) == 200
    revoke(consortium, "alder", now=NOW)
    deployed.wait_until(lambda: activation(consortium, key) != 200)
    pull = Caller(consortium, key).post("/v1/fleet/pull-messages", PullMessagesRequest())
    assert pull.status_code == 401


def test_without_tls_nothing_is_answered(server: Any) -> None:
    host, port = split_address(server.consortium.settings.address)
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not connection.recv(100).startswith(b"HTTP")


def test_old_tls_is_refused(server: Any) -> None:
    context = ssl.create_default_context(cafile=str(server.consortium.authority))
    # Cipher suites of then, so that it is the version that is refused.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, port = split_address(server.consortium.settings.address)
    with (
        socket.create_connection((host, port), timeout=20) as connection,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(connection, server_hostname=host)


def test_the_own_door_is_shut_without_the_token(server: Any) -> None:
    root = server.consortium.root
    command = (root / "running").joinpath("secret").read_bytes()
    pid = deployed.find_process("server.superlink", str(root))
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    address = f"{HOST}:{words[words.index('--own-port') + 1]}"
    caller = Caller(server.consortium)
    caller.base = f"https://{address}"
    assert caller.post("/v1/control/list-nodes", ListNodesRequest()).status_code == 403
    acquire = AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    assert caller.post("/v1/runtime/acquire-task", acquire).status_code == 401
    with Control(address, server.consortium.authority, secret=command) as control:
        assert isinstance(control.nodes(), list)


def renew_and_wait(consortium: Consortium, now: datetime) -> None:
    """Renew the certificate and wait until it is the one that is served."""
    pem = renew(consortium, (), now=now).certificate.read_text().strip()
    address = split_address(consortium.settings.address)
    deployed.wait_until(lambda: ssl.get_server_certificate(address).strip() == pem)


def test_a_renewed_certificate_is_served_without_a_break(server: Any) -> None:
    consortium = server.consortium
    pid = deployed.find_process("server.superlink", str(consortium.root))
    renew_and_wait(consortium, NOW)
    assert Caller(consortium).post("/v1/control/list-nodes", ListNodesRequest()).status_code == 403
    assert deployed.find_process("server.superlink", str(consortium.root)) == pid


def activate_with_flowers_client(consortium: Consortium, authority: bytes) -> None:
    """Call the server as a SuperNode does, trusting one authority."""
    key = new_key()
    with environment(no_proxy()):
        client = FleetHttpClient.from_server_address(
            server_address=consortium.settings.address,
            insecure=False,
            root_certificates=authority,
            interceptors=[NodeAuthHttpInterceptor(key, key.public_key())],
        )
    try:
        request = ActivateNodeRequest(public_key=public_pem(key), heartbeat_interval=30)
        client.ActivateNode(request)
    finally:
        client.close()


def test_a_node_speaks_to_nobody_whom_its_authority_does_not_vouch_for_now(server: Any) -> None:
    consortium = server.consortium
    own = consortium.authority.read_bytes()
    with pytest.raises(httpx.HTTPStatusError):  # it trusts the server, and is a stranger to it
        activate_with_flowers_client(consortium, own)
    other = certificate_pem(make_authority(new_key(), "cordis", now=NOW, lifetime=DAY))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        activate_with_flowers_client(consortium, other)
    renew_and_wait(consortium, NOW - 500 * DAY)
    with pytest.raises(httpx.ConnectError, match="certificate has expired"):
        activate_with_flowers_client(consortium, own)
    renew_and_wait(consortium, NOW)
    with pytest.raises(httpx.HTTPStatusError):
        activate_with_flowers_client(consortium, own)


def test_a_killed_supervisor_leaves_nothing_and_can_be_started_again(
    tmp_path: Path, watch: Any
) -> None:
    consortium = deployed.new_consortium(tmp_path / "c")
    command = [sys.executable, "-c", "from server.cli import main; main()", "start"]
    watched = watch(os.getpid())
    first = subprocess.Popen(
        [*command, str(consortium.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert first.stdout is not None
        line = first.stdout.readline()
        assert line.endswith("cordis: the server is up\n"), line
        watched.look()
        assert len(watched.alive()) == 3  # it, the SuperLink, and the undertaker
        with pytest.raises(ConfigError, match="cordis is started already; stop that process first"):
            supervise(consortium, stop=threading.Event(), say=print)
    finally:
        first.kill()
        first.communicate()
    assert watched.wait_until_gone(20) == []
    with deployed.served(consortium) as again:
        again.wait(lambda: again.said != [])
