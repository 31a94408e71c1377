# SPDX-License-Identifier: GPL-2.0-only
"""A network of guests and network namespaces, in which any link can be cut.

All are ports of one hub, which forwards Ethernet frames and runs as a thread. A
guest is connected by "scripts/vm --net", a namespace by a TAP device in it. Needs
root and iproute2. Nothing leaves this machine: no port leads anywhere else.
"""
import contextlib
import ctypes
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import threading
from typing import Dict, Iterable, Iterator, List, Optional, Set, Tuple

TUNSETIFF = 0x400454ca
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
FRAME_SIZE = 65536

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have the calling thread be in a network namespace."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(other, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns", namespace)
        try:
            yield
        finally:
            _libc.setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
        os.close(other)


class Port:
    """Where frames enter and leave the hub."""

    def fileno(self) -> int:
        raise NotImplementedError

    def receive(self) -> bytes:
        raise NotImplementedError

    def send(self, frame: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Guest(Port):
    """The network card of a guest that was started with --net PATH."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path + ".wire")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bytes:
        return self._socket.recv(FRAME_SIZE)

    def send(self, frame: bytes) -> None:
        self._socket.sendto(frame, self.path)

    def close(self) -> None:
        self._socket.close()


class Namespace(Port):
    """A network namespace with an address; made here, and deleted by close()."""

    def __init__(self, name: str, address: str) -> None:
        self.name = f"{name}-{os.getpid()}"
        self.address = address
        _ip("netns", "add", self.name)
        with inside(self.name):
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._tap, TUNSETIFF,
                        struct.pack("16sH22x", b"wire", IFF_TAP | IFF_NO_PI))
        _ip("-n", self.name, "addr", "add", address + "/24", "dev", "wire")
        for device in "lo", "wire":
            _ip("-n", self.name, "link", "set", "dev", device, "up")

    def command(self, *words: str) -> List[str]:
        """The command line that runs a program there."""
        return ["ip", "netns", "exec", self.name, *words]

    def socket(self, kind: int) -> socket.socket:
        """A new socket there, of IPv4."""
        with inside(self.name):
            return socket.socket(socket.AF_INET, kind)

    def fileno(self) -> int:
        return self._tap

    def receive(self) -> bytes:
        return os.read(self._tap, FRAME_SIZE)

    def send(self, frame: bytes) -> None:
        os.write(self._tap, frame)

    def close(self) -> None:
        os.close(self._tap)
        _ip("netns", "delete", self.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Network:
    """The hub. A link is cut in one direction at a time."""

    def __init__(self) -> None:
        self.ports: Dict[str, Port] = {}
        self._selector = selectors.DefaultSelector()
        self._names: Dict[bytes, str] = {}
        self._cut: Set[Tuple[str, str]] = set()
        self._wake, end = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._end = end
        self._thread: Optional[threading.Thread] = None

    def add(self, name: str, port: Port) -> None:
        """Add a port, before start()."""
        self.ports[name] = port
        self._selector.register(port, selectors.EVENT_READ, name)

    def start(self) -> None:
        """Begin to forward frames."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Let no frame pass from any of the sources to any of the targets."""
        targets = list(targets)
        self._cut = self._cut | {(source, target) for source in sources
                                 for target in targets}

    def heal(self) -> None:
        """Let all frames pass again."""
        self._cut = set()

    def close(self) -> None:
        """End the thread, and close all ports."""
        os.close(self._end)
        if self._thread:
            self._thread.join()
        os.close(self._wake)
        self._selector.close()
        for port in self.ports.values():
            port.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._wake:
                    return
                # As a switch does, lose what cannot be received or sent now
                with contextlib.suppress(OSError):
                    self._forward(key.data)

    def _forward(self, source: str) -> None:
        frame = self.ports[source].receive()
        self._names[frame[6:12]] = source
        known = self._names.get(frame[:6])
        for target in [known] if known else self.ports:
            if target != source and (source, target) not in self._cut:
                with contextlib.suppress(OSError):
                    self.ports[target].send(frame)
