"""A hospital's image archive on this machine: an Orthanc server on loopback ports, for as long as
it is needed.

Orthanc (https://www.orthanc-server.com) comes with the Debian packages ``orthanc`` and
``orthanc-dicomweb``; ``scripts/orthanc`` installs them. Nothing of a system's service is used: the
server has its own configuration, database and ports, and ends with the context.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from protocol.errors import ConfigError

__all__ = ["Orthanc", "OrthancTls", "free_port", "orthanc_problem"]

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AE_TITLE = "ORTHANC"
START_S = 60.0
LOGIN = ("concors", "loopback only")


def orthanc_problem() -> str | None:
    """Return why no Orthanc can be started here, or ``None``."""
    if shutil.which("Orthanc") is None:
        return "Orthanc is not installed; run scripts/orthanc as root"
    if not PLUGIN.exists():
        return "Orthanc's DICOMweb plugin is not installed; run scripts/orthanc as root"
    return None


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class OrthancTls:
    """Files of an encrypted server: authority, certificate and key (PEM)."""

    authority: Path
    certificate: Path
    key: Path


class Orthanc(AbstractContextManager["Orthanc"]):
    """One server.

    Parameters
    ----------
    folder : Path
        For its configuration, database and log.
    callers : dict
        AE title to port, on the loopback address, of those it may send to by C-MOVE.
    tls : OrthancTls, optional
        Encrypt classic DICOM, and ask for a certificate. DICOMweb stays plain: Debian's Orthanc
        1.10 dies at the first encrypted request, and is kept behind a proxy anyhow.
    """

    ae_title = AE_TITLE
    login = LOGIN

    def __init__(
        self, folder: Path, callers: dict[str, int] | None = None, tls: OrthancTls | None = None
    ) -> None:
        self.folder, self.tls = folder, tls
        self.dicom_port, self.http_port = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        modalities = {
            title: {
                "AET": title,
                "Host": "127.0.0.1",
                "Port": port,
                "UseDicomTls": tls is not None,
            }
            for title, port in (callers or {}).items()
        }
        settings = self._settings() | {"DicomModalities": modalities}
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.http_port}",
            auth=LOGIN,
            trust_env=False,
            timeout=60.0,
        )

    def __enter__(self) -> "Orthanc":
        problem = orthanc_problem()
        if problem is not None:
            raise ConfigError(f"{problem}.")
        with (self.folder / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - a program by its full path
                [str(shutil.which("Orthanc")), "--verbose", str(self.folder / "orthanc.json")],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait(self.process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def upload(self, contents: Iterable[bytes]) -> int:
        """Store files; return how many are new."""
        new = 0
        for content in contents:
            answer = self.client.post("/instances", content=content)
            answer.raise_for_status()
            new += answer.json()["Status"] == "Success"
        return new

    def count(self) -> int:
        """Return how many images it holds."""
        return int(self.client.get("/statistics").raise_for_status().json()["CountInstances"])

    def log(self) -> str:
        """Return what it has logged."""
        return (self.folder / "orthanc.log").read_text(encoding="utf-8", errors="replace")

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": AE_TITLE,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": dict([LOGIN]),
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "WebDavEnabled": False,
            # Nothing to lose: it lives as long as a test.
            "SyncStorageArea": False,
        }
        if self.tls is None:
            return settings
        return settings | {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(self.tls.certificate),
            "DicomTlsPrivateKey": str(self.tls.key),
            "DicomTlsTrustedCertificates": str(self.tls.authority),
            "DicomTlsRemoteCertificateRequired": True,
        }

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ConfigError(f"Orthanc ended at once; see orthanc.log in {self.folder.name}.")
            try:
                self.client.get("/system").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise ConfigError(f"Orthanc does not answer within {START_S:g} s.")

    def _end(self) -> None:
        self.client.close()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
