"""What must be right before a hospital's node is left running: one line each, and what to mend."""

import os
import shutil
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path

import httpx
from cryptography import x509

from client.membership import Document, load_welcome, node_fingerprint
from client.policy import load_policy
from client.site import SiteConfig, inside, load_site
from client.tables import read_table
from protocol.errors import ConcorsError, ConfigError, PolicyError

__all__ = ["Line", "preflight"]

TIMEOUT_S = 10.0
# Flower's server takes a node's signature for this much before its own time at most.
MAX_SKEW_S = 60.0
MIN_DISK_GB, MIN_MEMORY_GB = 5.0, 2.0
GIGABYTE = 1e9
SOON = timedelta(days=30)


@dataclass(frozen=True)
class Line:
    """One thing that was looked at; ``mend`` is empty where it is right."""

    what: str
    found: str
    mend: str = ""

    @property
    def good(self) -> bool:
        return not self.mend


def preflight(site_dir: Path) -> Iterator[Line]:
    """Yield what was found, thing by thing; a failure of one does not keep the next from its turn.

    Parameters
    ----------
    site_dir : Path
        The hospital.
    """
    site_dir = site_dir.resolve()
    yield _tried("site.yaml", lambda: _settings(site_dir))
    yield _tried("policy.yaml", lambda: _policy(site_dir))
    yield _tried("data", lambda: _data(site_dir))
    yield _tried("node key", lambda: _key(site_dir))
    yield _disk(site_dir)
    yield _memory()
    yield _tried("GPU", lambda: _gpu(load_site(site_dir)))
    try:
        welcome = load_welcome(site_dir)
    except ConcorsError as error:
        yield Line("welcome", "none that holds", error.sentence)
        return
    yield Line("welcome", f"{welcome['consortium']}, server {welcome['address']}")
    yield from _server(welcome)


def _tried(what: str, look: Callable[[], Line]) -> Line:
    try:
        return look()
    except ConcorsError as error:
        return Line(what, "not right", error.sentence)
    except OSError as error:
        return Line(what, "cannot be read", f"Mend this: {error.strerror}.")


def _settings(site_dir: Path) -> Line:
    return Line("site.yaml", f"hospital {load_site(site_dir).name}")


def _policy(site_dir: Path) -> Line:
    policy = load_policy(site_dir, load_site(site_dir))
    private = "with" if policy.privacy else "without"
    return Line(
        "policy.yaml",
        f"training {private} noise, at most {policy.max_payload_mb:g} MB a message",
    )


def _data(site_dir: Path) -> Line:
    config = load_site(site_dir)
    places = [(site_dir / member).resolve() for member in config.members] or [site_dir]
    files, tables = 0, 0
    for place in places:
        settings = load_site(place)
        if settings.images is not None:
            folder = inside(place, settings.images.path, "images.path")
            if not any(_some_files(folder)):
                raise ConfigError("The folder of images has no file that can be read; mend it.")
            files += 1
        if settings.outcomes is not None:
            columns, _ = read_table(inside(place, settings.outcomes.path, "outcomes.path"))
            if settings.outcomes.patient not in columns:
                raise ConfigError(
                    f"The outcome table has no column '{settings.outcomes.patient}', which "
                    "outcomes.patient names; correct site.yaml."
                )
            tables += 1
    return Line("data", f"{files} folder(s) of images and {tables} table(s) can be read")


def _some_files(folder: Path) -> Iterator[bool]:
    for place, _, names in os.walk(folder):
        for name in names:
            if os.access(Path(place) / name, os.R_OK):
                yield True


def _key(site_dir: Path) -> Line:
    fingerprint = node_fingerprint(site_dir)
    folder = site_dir / ".concors" / "node"
    for path, mode in ((folder, 0o700), (folder / "node.key", 0o600)):
        found = stat.S_IMODE(path.stat().st_mode)
        if found & ~mode:
            raise PolicyError(
                f"{path.name} has the mode {found:o}, so that others on this machine can read it; "
                f"run chmod {mode:o} on it."
            )
    return Line("node key", f"{fingerprint[:8]}, for its owner's eyes only")


def _disk(site_dir: Path) -> Line:
    free_gb = shutil.disk_usage(site_dir).free / GIGABYTE
    mend = "" if free_gb >= MIN_DISK_GB else f"Make room: {MIN_DISK_GB:g} GB at least."
    return Line("disk", f"{free_gb:.1f} GB free", mend)


def _memory() -> Line:
    free_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / GIGABYTE
    with suppress(OSError):  # which only Linux has
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                # Beside what is free, what the kernel would give back.
                free_gb = int(line.split()[1]) * 1024 / GIGABYTE
    mend = "" if free_gb >= MIN_MEMORY_GB else f"Free memory: {MIN_MEMORY_GB:g} GB at least."
    return Line("memory", f"{free_gb:.1f} GB free", mend)


def _gpu(config: SiteConfig) -> Line:
    if config.device == "cpu":
        return Line("GPU", "not wanted (site.yaml: device)")
    # Here, as it takes seconds to load.
    import torch

    if torch.cuda.is_available():
        return Line("GPU", torch.cuda.get_device_name(0))
    if config.device == "auto":
        return Line("GPU", "none; the processor is used")
    return Line("GPU", "none", "site.yaml wants one: install its driver, or set device to auto.")


def _server(welcome: Document) -> Iterator[Line]:
    host, _, port = welcome["address"].rpartition(":")
    host = host.strip("[]")
    proxied = bool(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"))
    if not proxied:
        try:
            socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError:
            yield Line("name", f"{host} is not known", "Ask the network's administrators for it.")
            return
        yield Line("name", f"{host} is known")
    yield _certificate(welcome["authority"])
    try:
        context = ssl.create_default_context(cadata=welcome["authority"])
        url = f"https://{welcome['address']}/health"
        with httpx.Client(verify=context, timeout=TIMEOUT_S) as client:
            answer = client.get(url)
            closed = client.get(url.removesuffix("/health") + "/docs")
    except httpx.ConnectError as error:
        yield _unreachable(error, welcome["address"])
        return
    except httpx.HTTPError as error:
        found = type(error).__name__
        yield Line("server", found, "Ask the coordinator whether the server runs.")
        return
    yield Line("TLS", "the server's certificate is the consortium's")
    if answer.status_code != httpx.codes.OK:
        found = f"/health answers {answer.status_code}"
        yield Line("server", found, "Ask the coordinator whether the server runs.")
    else:
        yield Line("server", "in good health")
    yield _open_doors(closed)
    yield _clock(answer)
    yield Line("version", f"concors {version('concors')}, flwr {version('flwr')}")
    yield Line("ports", f"outbound to port {port} only; nothing listens for the network here")


def _unreachable(error: httpx.ConnectError, address: str) -> Line:
    if "CERTIFICATE" in str(error).upper():
        return Line(
            "TLS",
            "the server's certificate is not the consortium's",
            "Something answers in its place (a proxy that opens TLS?), or the clock is wrong; let "
            "the network's administrators except this address, or ask for a new welcome.",
        )
    return Line(
        "server",
        f"{address} cannot be reached",
        "Let the firewall pass outbound connections to it, and ask whether the server runs.",
    )


def _certificate(authority: str) -> Line:
    ends = x509.load_pem_x509_certificate(authority.encode()).not_valid_after_utc
    mend = ""
    if ends < datetime.now(UTC) + SOON:
        mend = "It ends within a month or has ended; ask the coordinator for a new welcome."
    return Line("authority", f"valid until {ends:%Y-%m-%d}", mend)


def _open_doors(answer: httpx.Response) -> Line:
    """Look whether the hospitals' port shows hospitals more than what is theirs."""
    if answer.status_code < httpx.codes.BAD_REQUEST:
        return Line(
            "doors",
            "the server shows more than a hospital needs",
            "Ask the coordinator to start it with concors-server, which keeps its own doors shut.",
        )
    return Line("doors", "the server shows a hospital its own only")


def _clock(answer: httpx.Response) -> Line:
    date = answer.headers.get("date")
    if date is None:
        return Line("clock", "the server tells no time", "Ask the coordinator to look at it.")
    skew_s = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    mend = "" if skew_s <= MAX_SKEW_S else "Set this machine's clock (or the server's), with NTP."
    return Line("clock", f"{skew_s:.0f} s from the server's", mend)
