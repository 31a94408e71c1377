# SPDX-License-Identifier: GPL-2.0-only
"""Hosts with tlockd, and all that a test has of them: a World."""
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from daemon import judge
from daemon.etcd import DIES_WITH_PARENT, Etcd
from daemon.gate import OVER, Gate, Ledger
from daemon.network import Network

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
# tlockd with gate-fake.c
TLOCKD = os.environ.get("TLOCKD") or os.path.join(
    TOP, "build", "userlib-tests", "obj", "tlockd-fake")

# The lease of the hosts in seconds: long enough for a slow machine to keep it, and
# yet short for those who wait for its end
TTL = 6
# How long to wait for what must happen: much longer than a slow machine takes
LONG = 60


def wait_for(condition, what, timeout=LONG):
    """Waits until the condition holds; returns what it returns."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError("no %s within %d s" % (what, timeout))
        time.sleep(0.02)


Queued = collections.namedtuple(
    "Queued", "lock host since waiters token held_since comm job")


class Status:
    """The lines of the status socket"""

    def __init__(self, lines):
        self.locks = {}     # name: gate, openings, lost
        self.queues = collections.defaultdict(list)     # name: Queued...
        for line in lines:
            kind, *fields = line.split("\t")
            if kind == "tlockd":
                (self.version, self.host, self.endpoint, lease, requests,
                 failures) = fields
                self.lease_ms, self.requests, self.failures = (
                    int(lease), int(requests), int(failures))
            elif kind == "lock":
                name, gate, openings, lost = fields
                self.locks[name] = (gate, int(openings), int(lost))
            else:
                assert kind == "queue", line
                lock, host, since, waiters, token, held, comm, job = fields
                self.queues[lock].append(Queued(
                    lock, host, int(since), int(waiters), int(token),
                    int(held), comm, job))


class Host:
    """A host with tlockd, a link to each member of etcd and gated locks."""

    def __init__(self, world, name, locks, **options):
        self.world = world
        self.name = name
        self.directory = os.path.join(world.directory, name)
        self.gates_directory = os.path.join(self.directory, "gates")
        self.config = os.path.join(self.directory, "tlockd.conf")
        self.log_path = os.path.join(self.directory, "log")
        self.process = None
        for path in self.directory, self.gates_directory:
            os.mkdir(path)
        self.gates = {}
        for lock in locks:
            self.create(lock)
        self.links = [world.network.link(member.port)
                      for member in world.etcd.members]
        self.write_config(**options)

    def write_config(self, **options):
        values = {"endpoints": " ".join(
            "%s://127.0.0.1:%d" % (self.world.etcd.scheme, link.port)
            for link in self.links), "host": self.name, "ttl": TTL}
        values.update(options)
        with open(self.config, "w") as file:
            file.writelines("%s = %s\n" % item for item in values.items())

    def create(self, lock):
        """Creates a gated lock."""
        self.gates[lock] = Gate(self.gates_directory, lock, self.name,
                                self.world.ledger)
        return self.gates[lock]

    @property
    def gate(self):
        """Its only lock"""
        gate, = self.gates.values()
        return gate

    def environment(self):
        return dict(os.environ, TLOCKD_FAKE=self.gates_directory,
                    RUNTIME_DIRECTORY=self.directory)

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                DIES_WITH_PARENT + [TLOCKD, "-c", self.config], stderr=log,
                env=self.environment())
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self):
        """Ends tlockd as systemd does; returns its exit status."""
        self.process.terminate()
        status = self.process.wait(LONG)
        self.process = None
        return status

    def status(self):
        wait_for(lambda: os.path.exists(os.path.join(
            self.directory, "status")), "status socket")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LONG)
            connection.connect(os.path.join(self.directory, "status"))
            with connection.makefile(encoding="utf-8") as file:
                return Status(file.read().splitlines())

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern):
        return wait_for(lambda: re.search(pattern, self.log()),
                        "%r in the log of %s" % (pattern, self.name))

    def cut(self, *directions):
        for link in self.links:
            link.cut(*directions)

    def heal(self):
        for link in self.links:
            link.heal()

    def is_over(self):
        return bool(self.gate.look().state & OVER)

    def close(self):
        if self.process:
            self.thaw()
        self.kill()
        for gate in self.gates.values():
            gate.close()


class World:
    """A cluster of etcd, and hosts with daemons, which do not run yet.

    names: of the hosts, in one string
    locks: that each of them has, in one string
    members: of the cluster
    partitions: whether the test cuts members off from each other
    options: values in the configuration
    """

    def __init__(self, names="a b", locks="dmm", members=1,
                 partitions=False, **options):
        # Not on a disk, which would make etcd wait
        self.directory = tempfile.mkdtemp(
            prefix="tlockd-", dir="/dev/shm" if os.path.isdir("/dev/shm")
            else None)
        self.ledger = Ledger()
        self.network = Network()
        self.etcd = Etcd(os.path.join(self.directory, "etcd"), members,
                         network=self.network if partitions else None)
        self.locks = locks.split()
        self.hosts = [self.add(name, **options) for name in names.split()]

    def add(self, name, **options):
        return Host(self, name, self.locks, **options)

    def start(self):
        for host in self.hosts:
            host.start()
        return self.hosts

    def logs(self):
        """What the daemons said, for a test that failed"""
        return "".join("%s: %s\n" % (host.name, line) for host in self.hosts
                       for line in host.log().splitlines()[-40:])

    def close(self):
        for host in self.hosts:
            host.close()
        self.etcd.close()
        self.network.stop()
        shutil.rmtree(self.directory)

    def judge(self):
        """Returns what is wrong, as lines."""
        return judge.judge(self.ledger)
