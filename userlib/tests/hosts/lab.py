# SPDX-License-Identifier: GPL-2.0-only
"""A laboratory: hosts that share a lock by a cluster of etcd, and an instrument.

Each host is a guest of scripts/vm, which runs the real module and tlockd. The
members of the cluster, and the instrument, run on this machine, each in a network
namespace. Any link of the network can be cut, except for those to the instrument;
beside it is the test, which controls the guests through the network.
"""
import ast
import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional)

import network
import simulator

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.abspath(os.path.join(HERE, "../../.."))
VM = os.path.join(TREE, "scripts/vm")
TLOCKD = os.path.join(TREE, "build/userlib/tlockd")
FAKE = os.path.join(TREE, "userlib/tests/fake-tlockd")
LOCK = "stage"
MEMBERS = "a", "b", "c"
LAB = "lab"
CONFIG = "/etc/tlockd.conf"
GUEST_PORT = 7001
# A lease's time to live, in seconds: long enough for slow guests, and short
# enough for tests
TTL = 6
# How long the members may take to elect a leader, in seconds
ELECTION = 3
# How long to wait for what must happen: much longer than a slow machine takes
LONG = 60

#: Addresses of all ports of the network
ADDRESSES = {LAB: "10.77.0.1", "a": "10.77.0.11", "b": "10.77.0.12",
             "c": "10.77.0.13", "one": "10.77.0.21", "two": "10.77.0.22",
             "three": "10.77.0.23"}


def _build() -> None:
    subprocess.run(
        [os.path.join(TREE, "scripts/setup"), "make", "gcc", "libc6-dev",
         "libsmartcols-dev", "pkg-config", "libcurl4-openssl-dev",
         "libjansson-dev", "libsystemd-dev", "etcd-server", "iproute2",
         "procps"], check=True)
    subprocess.run(["make", "-s", "-C", os.path.join(TREE, "userlib"), "all",
                    "tlockd"], check=True)


def wait_for(condition: Callable[[], bool], what: str,
             limit: float = LONG) -> float:
    """Wait until the condition holds, and return how many seconds it took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() > start + limit:
            raise AssertionError(f"no {what} within {limit} s")
        time.sleep(0.02)
    return time.monotonic() - start


class Member:
    """A member of the cluster."""

    def __init__(self, namespace: network.Namespace, name: str,
                 directory: str) -> None:
        address = namespace.address
        peers = ",".join(f"{member}=http://{ADDRESSES[member]}:2380"
                         for member in MEMBERS)
        self.name = name
        self._log = os.path.join(directory, name + ".log")
        self._command = namespace.command(
            "etcd", "--name", name,
            "--data-dir", os.path.join(directory, name),
            "--listen-client-urls", f"http://{address}:2379",
            "--advertise-client-urls", f"http://{address}:2379",
            "--listen-peer-urls", f"http://{address}:2380",
            "--initial-advertise-peer-urls", f"http://{address}:2380",
            "--initial-cluster", peers, "--logger", "zap")
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if not self._process:
            with open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it: its data stays."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Stop it, or let it continue."""
        if self._process:
            self._process.send_signal(number)


class Timed(NamedTuple):
    """An agent's answer."""
    value: Any
    #: when it came, on the monotonic clock
    time: float


class Program:
    """A program that runs on a host."""

    def __init__(self, host: "Host", command: Iterable[str],
                 heard: Optional[Callable[[str], None]] = None) -> None:
        self.host = host
        self._socket = host.request("run", *command)
        self._file = self._socket.makefile("r", encoding="utf-8",
                                           errors="replace")
        #: its answers that result() has not returned
        self.answers: "queue.Queue[Timed]" = queue.Queue()
        self._heard = heard or self._answer
        self.pid = int(self._file.readline())
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        host.programs.append(self)

    def _answer(self, line: str) -> None:
        self.answers.put(Timed(line, time.monotonic()))

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._file:
                self._heard(line.rstrip("\n"))
        self._heard("end")

    def line(self, limit: float = LONG) -> Timed:
        """What it prints next; "end" if it has ended."""
        return self.answers.get(timeout=limit)

    def tell(self, line: str) -> None:
        """Give it a line of input."""
        self._socket.sendall(line.encode() + b"\n")

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.runs():
            self.host.do("signal", self.pid, number)

    def lose(self) -> None:
        """Its host is no more, and so it has ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.wait()

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait for its end."""
        self._thread.join(LONG)

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()


class Agent(Program):
    """An agent on a host, which does what begin() says."""

    def __init__(self, host: "Host") -> None:
        super().__init__(host, [os.path.join(HERE, "agent"), host.name, LOCK,
                                ADDRESSES[LAB]])
        line = self.line().value
        if line != "ready":
            raise AssertionError(f"the agent on {host.name} says: {line}")

    def begin(self, expression: str) -> None:
        """Have it evaluate an expression: see the program agent."""
        self.tell(expression)

    def result(self, limit: float = LONG) -> Timed:
        """The value, or the name of the exception."""
        line, when = self.line(limit)
        return Timed(ast.literal_eval(line), when)

    def do(self, expression: str) -> Any:
        """Evaluate an expression."""
        self.begin(expression)
        return self.result().value


class Host:
    """A guest, with tlockd and agents."""

    def __init__(self, laboratory: "Lab", name: str) -> None:
        self.name = name
        self.daemon: Optional[Program] = None
        #: what tlockd printed
        self.log: List[str] = []
        #: the programs started since it last booted
        self.programs: List[Program] = []
        self._lab = laboratory
        self._vm: Optional[subprocess.Popen[str]] = None
        self._wire = os.path.join(laboratory.directory, name)

    def boot(self) -> None:
        """Start the guest, and wait until it obeys."""
        self._vm = subprocess.Popen(
            [VM, "--cpus", "1", "--memory", "512M", "--timeout", "100000",
             "--net", self._wire, "--", os.path.join(HERE, "guest"),
             ADDRESSES[self.name], LOCK],
            stdout=subprocess.PIPE, text=True, cwd=TREE)
        assert self._vm.stdout
        if self._vm.stdout.readline() != "ready\n":
            raise AssertionError(f"the guest {self.name} did not start")

    def request(self, *words: Any) -> socket.socket:
        """A connection in which this request has been made."""
        connection = self._lab.spaces[LAB].socket(socket.SOCK_STREAM)
        connection.settimeout(LONG)
        connection.connect((ADDRESSES[self.name], GUEST_PORT))
        connection.sendall(json.dumps(words).encode() + b"\n")
        return connection

    def do(self, *words: Any) -> str:
        """Have a request answered."""
        with self.request(*words) as connection, \
                connection.makefile("r", encoding="utf-8") as file:
            return file.readline().strip()

    def run(self, *command: str) -> str:
        """Run a program, and return what it prints, and its exit status."""
        with self.request("run", *command) as connection, \
                connection.makefile("r", encoding="utf-8") as file:
            connection.shutdown(socket.SHUT_WR)
            return file.read().split("\n", 1)[1]

    def start(self) -> None:
        """Start tlockd."""
        endpoints = " ".join(f"http://{ADDRESSES[member]}:2379"
                             for member in MEMBERS)
        self.do("write", CONFIG, f"endpoints = {endpoints}\n"
                f"host = {self.name}\nttl = {TTL}\n")
        self.daemon = Program(self, [TLOCKD], self.log.append)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End tlockd."""
        if self.daemon:
            self.daemon.signal(signal.SIGCONT)
            self.daemon.signal(number)
            self.daemon.wait()
            self.daemon = None

    def signal(self, number: int) -> None:
        """Stop tlockd, or let it continue."""
        if self.daemon:
            self.daemon.signal(number)

    def freeze(self) -> None:
        """Freeze the guest as a whole."""
        os.kill(self._emulator(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._emulator(), signal.SIGCONT)

    def crash(self) -> None:
        """Have the guest end as by a power cut."""
        if not self._vm:
            return
        self._vm.terminate()
        # A frozen one cannot end
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            self.thaw()
        self._vm.communicate()
        self._vm = self.daemon = None
        while self.programs:
            self.programs.pop().lose()

    def end(self) -> None:
        """Tell the guest to end."""
        if self._vm:
            self.do("end")

    def wait(self) -> int:
        """Wait for that, and return the exit status of scripts/vm."""
        if not self._vm:
            return 0
        self._vm.communicate()
        status = self._vm.returncode
        self._vm = None
        return status

    def _emulator(self) -> int:
        assert self._vm
        return int(subprocess.run(
            ["pgrep", "--parent", str(self._vm.pid), "qemu-system"], check=True,
            stdout=subprocess.PIPE, text=True).stdout)


class Lab:
    """The laboratory."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self.directory = tempfile.mkdtemp(prefix="tlock-lab.")
        self.network = network.Network()
        self.spaces: Dict[str, network.Namespace] = {}
        self.hosts: Dict[str, Host] = {}
        self.members: Dict[str, Member] = {}
        for name in (LAB, *MEMBERS):
            space = network.Namespace(f"tlock-{name}", ADDRESSES[name])
            self.spaces[name] = space
            self.network.add(name, space)
        for name in hosts:
            host = Host(self, name)
            self.hosts[name] = host
            self.network.add(name, network.Guest(
                os.path.join(self.directory, name)))
        for name in MEMBERS:
            self.members[name] = Member(self.spaces[name], name, self.directory)
        self.instrument = simulator.Instrument(self.spaces[LAB])
        self.network.start()

    def start_cluster(self) -> None:
        """Start all members, and wait for a leader."""
        for member in self.members.values():
            member.start()
        wait_for(lambda: self.leader() is not None, "leader of the cluster")

    def leader(self) -> Optional[str]:
        """The member that leads, as a member says that knows one."""
        for name in MEMBERS:
            with contextlib.suppress(OSError, http.client.HTTPException,
                                     KeyError):
                status = self._status(name)
                if status["leader"] == status["header"]["member_id"]:
                    return name
        return None

    def _status(self, name: str) -> Dict[str, Any]:
        link = http.client.HTTPConnection(ADDRESSES[name], 2379)
        link.sock = self.spaces[LAB].socket(socket.SOCK_STREAM)
        with contextlib.closing(link):
            link.sock.settimeout(1)
            link.sock.connect((ADDRESSES[name], 2379))
            link.request("POST", "/v3/maintenance/status", "{}")
            status: Dict[str, Any] = json.load(link.getresponse())
            return status

    def cut(self, host: str, to_cluster: bool = True,
            to_host: bool = True) -> None:
        """Cut a host off the cluster, in one direction or both."""
        if to_cluster:
            self.network.cut([host], MEMBERS)
        if to_host:
            self.network.cut(MEMBERS, [host])

    def heal(self) -> None:
        """Connect everything, and let all members run."""
        self.network.heal()
        for member in self.members.values():
            member.signal(signal.SIGCONT)
            member.start()

    def end(self) -> int:
        """End the guests, and return the largest exit status of scripts/vm: it
        is not 0 if a kernel reported a problem."""
        for host in self.hosts.values():
            host.end()
        return max(host.wait() for host in self.hosts.values())

    def remove(self) -> None:
        """End and remove everything, in whatever state it is."""
        for host in self.hosts.values():
            host.crash()
        for member in self.members.values():
            member.kill()
        self.instrument.close()
        self.network.close()
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def opened(*hosts: str) -> Iterator[Lab]:
    """A laboratory, with everything built that it needs. A program that is ended
    by SIGTERM removes it, too."""
    _build()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    laboratory = Lab(hosts)
    try:
        yield laboratory
    finally:
        laboratory.remove()
