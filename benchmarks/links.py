"""Hosts of their own on one machine: network namespaces, and lines that are slow, lossy or cut.

Linux shapes traffic with ``tc netem``, which not every kernel has. So a line is two TUN devices,
one in each namespace, and a few threads that carry the packets from one to the other as a bad line
would: each packet waits its turn at the line's rate, may be lost, and arrives after the delay. What
the hosts run on top is the kernel's own TCP. Needs root and ``/dev/net/tun``.
"""

import ctypes
import fcntl
import os
import queue
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["Line", "Link", "hosts", "in_namespace"]

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 1500
# What waits for its turn longer than this is dropped, as in any router.
LONGEST_QUEUE_S = 1.0


@dataclass(frozen=True)
class Line:
    """How good a line is, in each direction.

    Attributes
    ----------
    rate_mbit : float or None
        Megabits a second; None for as fast as this machine carries it.
    delay_ms : float
        One way.
    loss : float
        Share of packets lost, in [0, 1).
    """

    rate_mbit: float | None = None
    delay_ms: float = 0.0
    loss: float = 0.0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def in_namespace(name: str, command: list[str]) -> list[str]:
    """Return a command line that runs a command as if on the host ``name``."""
    return ["ip", "netns", "exec", name, *command]


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", path)
    finally:
        os.close(descriptor)


def _open_tun(namespace: str, device: str, own: str, peer: str) -> int:
    """Make a TUN device in a namespace and return its descriptor; packets are read from it here."""
    descriptor = -1

    def make() -> None:
        # The namespace is a thread's own, so a thread of its own enters it.
        nonlocal descriptor
        _enter(f"/run/netns/{namespace}")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(descriptor, TUNSETIFF, request)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if descriptor < 0:
        raise OSError("no TUN device could be made; this needs root and /dev/net/tun")
    _ip("-n", namespace, "addr", "add", own, "peer", peer, "dev", device)
    _ip("-n", namespace, "link", "set", device, "mtu", str(MTU), "up")
    return descriptor


@dataclass
class Link:
    """A line between the centre and one host; it can be cut and mended while it is in use."""

    line: Line
    centre: int
    host: int
    seed: int = 0
    cut: threading.Event = field(default_factory=threading.Event)
    bytes_up: int = 0
    bytes_down: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Carry packets until `stop`."""
        for source, target, up in ((self.host, self.centre, True), (self.centre, self.host, False)):
            waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
            for work, ends in (
                (self._take, (source, waiting, up)),
                (self._give, (target, waiting)),
            ):
                self._threads.append(threading.Thread(target=work, args=ends, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop carrying, and take the devices away."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for descriptor in (self.centre, self.host):
            os.close(descriptor)

    def _take(self, source: int, waiting: "queue.Queue[tuple[float, bytes]]", up: bool) -> None:
        """Read packets and say when each has crossed the line."""
        rng = random.Random(f"{self.seed} {up}")  # noqa: S311 - a line, not a secret
        free_at = 0.0
        while not self._stop.is_set():
            if not select.select([source], [], [], 0.1)[0]:
                continue
            with suppress(BlockingIOError):
                packet = os.read(source, MTU + 64)
                now = time.monotonic()
                free_at = max(free_at, now)
                if self.cut.is_set() or free_at > now + LONGEST_QUEUE_S:
                    continue
                if self.line.rate_mbit is not None:
                    free_at += 8 * len(packet) / (self.line.rate_mbit * 1e6)
                if up:
                    self.bytes_up += len(packet)
                else:
                    self.bytes_down += len(packet)
                if rng.random() >= self.line.loss:
                    waiting.put((free_at + self.line.delay_ms / 1000, packet))

    def _give(self, target: int, waiting: "queue.Queue[tuple[float, bytes]]") -> None:
        while not self._stop.is_set():
            with suppress(queue.Empty, OSError):
                due, packet = waiting.get(timeout=0.1)
                time.sleep(max(0.0, due - time.monotonic()))
                if not self.cut.is_set():
                    os.write(target, packet)


@contextmanager
def hosts(
    lines: list[Line], address: str = "10.77.0.1", prefix: str = "cc"
) -> Iterator[list[Link]]:
    """Make a centre and one host a line, each a network namespace; take all away at the end.

    Parameters
    ----------
    lines : list of Line
        One a host; host k is the namespace ``<prefix>-h<k>``, the centre ``<prefix>-centre``.
    address : str
        The centre's address, reached by every host over its own line.
    """
    centre, names = f"{prefix}-centre", [f"{prefix}-h{k}" for k in range(len(lines))]
    links: list[Link] = []
    try:
        for name in (centre, *names):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", centre, "addr", "add", f"{address}/32", "dev", "lo")
        for k, (name, line) in enumerate(zip(names, lines, strict=True)):
            near, far = f"10.77.{k + 1}.1", f"10.77.{k + 1}.2"
            links.append(
                Link(
                    line,
                    _open_tun(centre, f"{prefix}c{k}", near, far),
                    _open_tun(name, f"{prefix}h{k}", far, near),
                    seed=k,
                )
            )
            _ip("-n", name, "route", "add", "default", "dev", f"{prefix}h{k}")
            links[-1].start()
        yield links
    finally:
        for link in links:
            link.stop()
        for name in (centre, *names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
