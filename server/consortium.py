"""The coordinator's directory of one consortium: what lies where.

::

    server.yaml     name, address for the hospitals, where to listen, limits
    ca/             the consortium's authority (its key never leaves this machine)
    tls/            the server's certificate and key, renewed before they expire
    run.key         signs welcomes and manifests
    hospitals/      one JSON file a hospital that was ever admitted
    runs/           one folder a run
    state.db        what Flower's SuperLink must not forget
    audit.jsonl     what the coordinator did, each line bound to the one before
    access.jsonl    every request that reached the hospitals' port
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from protocol import audit
from protocol.errors import ConfigError
from protocol.yaml_files import Frozen, parse, read_yaml

__all__ = [
    "NAME",
    "SETTINGS_FILE",
    "Consortium",
    "Settings",
    "load",
    "split_address",
]

NAME = r"^[A-Za-z0-9_-]{1,64}$"
ANYWHERE = "0.0.0.0"  # noqa: S104 - the hospitals' port is for the outside, and guarded
SETTINGS_FILE = "server.yaml"


class Settings(Frozen):
    """``server.yaml``.

    Attributes
    ----------
    name : str
        The consortium.
    address : str
        ``host:port`` at which hospitals find the server.
    also : tuple of str
        Other names and addresses that its certificate holds.
    listen : str
        IP address at which the server listens for hospitals.
    listen_port : int
        Port at which it does, where a router in front has another one; 0: that of the address.
    resumes_per_hour : int
        How often a run that was killed is taken up again within an hour before a person is asked.
    """

    name: str = Field(pattern=NAME)
    address: str
    also: tuple[str, ...] = ()
    listen: str = ANYWHERE
    listen_port: int = Field(0, ge=0, le=65535)
    resumes_per_hour: int = Field(6, ge=0, le=1000)


@dataclass(frozen=True)
class Consortium:
    """A consortium's directory and its settings."""

    root: Path
    settings: Settings

    @property
    def authority(self) -> Path:
        """Certificate of the authority, PEM."""
        return self.root / "ca" / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The server's certificate, PEM."""
        return self.root / "tls" / "server.crt"

    @property
    def certificate_key(self) -> Path:
        """Private key of the server's certificate, PEM."""
        return self.root / "tls" / "server.key"

    @property
    def hospitals(self) -> Path:
        """Folder of the hospitals that were ever admitted."""
        return self.root / "hospitals"

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.root / "runs"

    @property
    def database(self) -> Path:
        """What Flower's SuperLink must not forget."""
        return self.root / "state.db"

    @property
    def access_log(self) -> Path:
        """Log of the requests at the hospitals' port."""
        return self.root / "access.jsonl"

    def run_key(self) -> Ed25519PrivateKey:
        """Return the key that signs welcomes and manifests."""
        key = serialization.load_pem_private_key((self.root / "run.key").read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("run.key is no Ed25519 key; restore the one that `init` made.")
        return key

    def note(self, event: str, **detail: Any) -> None:
        """Append an event to the audit log; on the disk before this returns."""
        audit.append(self.root / "audit.jsonl", event, detail, sync=True)

    def expires(self) -> datetime:
        """Return when the server's certificate expires."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[IPv6]:port``.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})", address)
    port = int(found[3]) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ConfigError(
            f"'{address}' is no address; write host:port as hospitals will call it, for example "
            "concors.example.org:8443."
        )
    return found[1] or found[2], port


def load(root: Path) -> Consortium:
    """Return the consortium in a directory.

    Raises
    ------
    ConfigError
        If the directory holds none.
    """
    if not (root / SETTINGS_FILE).is_file():
        raise ConfigError(f"{root} holds no consortium; make one with `concors-server init`.")
    settings = parse(Settings, read_yaml(root / SETTINGS_FILE), SETTINGS_FILE)
    split_address(settings.address)
    return Consortium(root.resolve(), settings)
