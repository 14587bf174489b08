"""A real SuperLink, and hospitals' nodes as processes."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.manifests import decide, receive
from client.membership import join, load_key, node_fingerprint, request
from deployment.certificates import (
    certificate_pem,
    make_authority,
    make_server_certificate,
    new_key,
    private_pem,
)
from deployment.control import Control
from deployment.flower import HOST, program, variables
from deployment.node_keys import public_pem
from deployment.papers import make_manifest, make_welcome
from deployment.private_files import write_private
from deployment.processes import Processes, free_ports, processes
from protocol.code import code_hash
from protocol.config import Study
from protocol.documents import digest, encode

APPS = Path(__file__).resolve().parent / "apps"
SITE_YAML = """\
name: {name}
outcomes: {{path: outcomes.csv, patient: patient, months: months, event: event}}
covariates: {{age: {{column: age, unit: years}}}}
min_cell: 1
"""


def make_site(directory: Path, num_patients: int = 12) -> Path:
    """Write a hospital of a table: every third patient has the event."""
    directory.mkdir(parents=True)
    (directory / "site.yaml").write_text(SITE_YAML.format(name=directory.name))
    rows = [f"p{i},{5 + i},{int(i % 3 == 0)},{50 + i}" for i in range(num_patients)]
    table = "\n".join(["patient,months,event,age", *rows]) + "\n"
    (directory / "outcomes.csv").write_text(table)
    return directory


def wait_for(path: Path, timeout_s: float = 60.0) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.05)


@dataclass
class Federation:
    """One SuperLink, the run that asks, and the coordinator's key."""

    directory: Path
    address: str
    authority: Path
    control: Control
    running: Processes
    coordinator: Ed25519PrivateKey
    nodes: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def admit(self, site: Path, consortium: str = "Heart") -> None:
        """Let a hospital join: its request, its registration, its welcome."""
        name, _, _ = request(site)
        self.nodes[name] = self.control.register(public_pem(load_key(site)), name)
        welcome = make_welcome(
            self.coordinator,
            consortium=consortium,
            site=name,
            address=self.address,
            authority=self.authority.read_text(),
            node_fingerprint=node_fingerprint(site),
            now=datetime.now(UTC),
        )
        paper = self.directory / f"{name}.welcome.json"
        paper.write_text(welcome)
        join(site, paper)

    def approve(self, site: Path, seed: int) -> str:
        """Have a study approved at a hospital; return its text as it travels."""
        study = Study.model_validate(
            {
                "name": f"s{seed}",
                "seed": seed,
                "hospitals": {"train": ["bad"]},
                "stages": ["survey"],
            }
        )
        document = study.model_dump(mode="json", by_alias=True)
        manifest = make_manifest(
            self.coordinator,
            consortium="Heart",
            study=document,
            code_hash=code_hash(),
            version="0.1.0",
            stages={},
            serial=1,
            now=datetime.now(UTC),
            expires=datetime.now(UTC) + timedelta(days=1),
        )
        receive(site, manifest)
        decide(site, digest(document), "approved")
        return encode(document, "The study")

    def ask(self, site: str, kind: str, document: dict[str, Any] | None = None, **more: Any) -> str:
        """Send a message; return its name."""
        self.count += 1
        name = f"{self.count:04}.json"
        ask = {"node": self.nodes[site], "type": kind, "ttl": 120.0, "document": document, **more}
        draft = self.directory / "run" / name
        draft.write_text(json.dumps(ask))
        draft.rename(self.directory / "run" / "asks" / name)
        return name

    def reply(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for the reply to a message."""
        path = self.directory / "run" / "replies" / name
        wait_for(path, timeout_s)
        return json.loads(path.read_text())

    def told(self, site: str, kind: str, document: Any = None, **more: Any) -> dict[str, Any]:
        """Ask and wait."""
        return self.reply(self.ask(site, kind, document, **more))


@contextmanager
def running_federation(directory: Path) -> Iterator[Federation]:
    """A SuperLink as the centre starts it, and a run of the asking app."""
    for name in ("asks", "replies"):
        (directory / "run" / name).mkdir(parents=True)
    keys = _keys(directory / "keys")
    (port,) = free_ports(1)
    address = f"{HOST}:{port}"
    environment = variables(directory / "server")
    environment["PYTHONPATH"] = os.pathsep.join([str(APPS), environment.get("PYTHONPATH", "")])
    with processes(directory / "logs") as running:
        for name, command in _server(keys, address).items():
            running.start(name, command, variables=environment, cwd=directory)
        with Control(address, keys / "ca.crt", running.check) as control:
            control.wait_until_up(60)
            bundle = _bundle(directory / "app")
            control.submit(bundle, {"run-dir": str(directory / "run")})
            key = Ed25519PrivateKey.generate()
            yield Federation(directory, address, keys / "ca.crt", control, running, key)
            (directory / "run" / "stop").touch()


def _keys(folder: Path) -> Path:
    """Write what a SuperLink on the loopback address needs."""
    folder.mkdir()
    now, day = datetime.now(UTC), timedelta(days=1)
    authority_key, key = new_key(), new_key()
    authority = make_authority(authority_key, "Heart", now=now, lifetime=7 * day)
    names = ("localhost", HOST)
    server = make_server_certificate(key, names, authority, authority_key, now=now, lifetime=day)
    (folder / "ca.crt").write_bytes(certificate_pem(authority))
    (folder / "server.crt").write_bytes(certificate_pem(server))
    write_private(folder / "server.key", private_pem(key))
    write_private(folder / "server.secret", secrets.token_bytes(32))
    return folder


def _server(keys: Path, address: str) -> dict[str, list[str]]:
    host, port = address.split(":")
    link = [program("flower-superlink"), "--host", host, "--port", port]
    link += ["--ssl-ca-certfile", str(keys / "ca.crt"), "--ssl-certfile", str(keys / "server.crt")]
    link += ["--ssl-keyfile", str(keys / "server.key"), "--enable-supernode-auth"]
    link += ["--isolation", "process", "--superexec-auth-secret-file", str(keys / "server.secret")]
    link += ["--disable-runtime-dependency-installation"]
    execute = [program("flower-superexec"), "--runtime-api-address", address]
    execute += ["--root-certificates", str(keys / "ca.crt")]
    execute += ["--superexec-auth-secret-file", str(keys / "server.secret")]
    return {"server": link, "server-exec": execute}


def _bundle(app_dir: Path) -> Path:
    # A client app that the bundle brings itself and that must never run.
    app_dir.mkdir()
    evil = "import pathlib, os\npathlib.Path(os.environ['HOME'], 'evil').touch()\napp = None\n"
    (app_dir / "evil.py").write_text(evil)
    components = {"serverapp": "asking:server", "clientapp": "evil:app"}
    flwr = {"app": {"publisher": "test", "components": components, "config": {"run-dir": ""}}}
    project = {"project": {"name": "asking", "version": "0.1.0"}, "tool": {"flwr": flwr}}
    (app_dir / "pyproject.toml").write_text(tomli_w.dumps(project))
    return app_dir


class Node:
    """A hospital's node as a process."""

    def __init__(self, site: Path, command: list[str], **environment: str) -> None:
        self.site = site
        self.log = site.parent / f"{site.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(site)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def wait_until_up(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + 60
        while "serves" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def troublesome(site: Path) -> Node:
    """Start a node with the worker that does as it is told."""
    home = site.parent / f"{site.name}-home"
    home.mkdir(exist_ok=True)
    return Node(site, [sys.executable, str(APPS / "node.py")], HOME=str(home))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """One hospital of twelve patients."""
    return make_site(tmp_path / "alpha")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """What stands above."""
    return sys.modules[__name__]
