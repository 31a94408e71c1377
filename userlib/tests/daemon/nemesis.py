# SPDX-License-Identifier: GPL-2.0-only
"""Agents that use locks at random, and faults at random."""
import random
import signal
import threading
import time

from daemon.gate import SECOND, now
from daemon.host import wait_for

# After the end of all faults, how long until each host gets each lock again: an
# election, the lease of a dead host, and time for a slow machine
PROGRESS = 60


class Agent(threading.Thread):
    """Uses a gate until it is stopped."""

    def __init__(self, gate, seed):
        super().__init__(daemon=True)
        self.gate = gate
        self.random = random.Random(seed)
        self.stopped = threading.Event()
        self.start()

    def run(self):
        while not self.stopped.wait(self.random.uniform(0, 0.1)):
            if self.random.random() < 0.2:
                grant = self.gate.attempt("try")
            else:
                grant = self.gate.acquire(self.random.choice((0.1, 1, 20)),
                                          "wait")
            if not grant:
                continue
            hold = 5 if self.random.random() < 0.01 else 0.1
            self.stopped.wait(self.random.uniform(0, hold))
            if self.random.random() < 0.1:
                grant.abandon()
            else:
                grant.release()


class Nemesis:
    """Disturbs a World, whose daemons it starts; prints what it does.

    The same seed makes the same faults, but not the same outcome.
    """

    def __init__(self, world, seed):
        self.world = world
        self.seed = seed
        self.random = random.Random(seed)
        self.healing = []   # what ends the present faults

    def run(self, seconds):
        """Raises AssertionError if there is no progress once faults have
        ended."""
        self.world.start()
        agents = [Agent(gate, "%s %s %s %d" % (self.seed, host.name, lock, i))
                  for host in self.world.hosts
                  for lock, gate in host.gates.items() for i in range(2)]
        began = time.monotonic()
        faults = 0
        try:
            self.progress()
            while time.monotonic() < began + seconds:
                names = self.random.sample(sorted(self.FAULTS),
                                           self.random.choice((1, 1, 2)))
                print("%5.1f s: %s" % (time.monotonic() - began,
                                       ", ".join(names)), flush=True)
                for name in names:
                    self.FAULTS[name](self)
                faults += len(names)
                time.sleep(self.random.choice((0.5, 2, 6)))
                self.heal()
                self.progress()
        finally:
            self.heal()
            for agent in agents:
                agent.stopped.set()
            for agent in agents:
                agent.join()
        grants = self.world.ledger.grants
        print("%d faults, %d grants, of which %d were revoked; %d openings" % (
            faults, len(grants),
            sum(grant.how == "revoked" for grant in grants),
            len(self.world.ledger.openings)))

    def heal(self):
        while self.healing:
            self.healing.pop()()

    def progress(self):
        """Each host gets each lock again."""
        began = now()
        missing = {(host.name, lock) for host in self.world.hosts
                   for lock in host.gates}

        def none_missing():
            for grant in list(self.world.ledger.grants):
                if grant.begin > began:
                    missing.discard((grant.host, grant.lock))
            return not missing

        try:
            wait_for(none_missing, "", PROGRESS)
        except AssertionError:
            raise AssertionError("no grant of %s" % sorted(missing)) from None
        print("         all have had the locks %.1f s later" % (
            (now() - began) / SECOND), flush=True)

    def host(self):
        return self.random.choice(self.world.hosts)

    def cut(self, *directions):
        host = self.host()
        links = self.random.choice((host.links,
                                    [self.random.choice(host.links)]))
        for link in links:
            link.cut(*directions)
        self.healing.append(host.heal)

    def delay(self):
        host = self.host()
        seconds = self.random.choice((0.05, 0.2, 1.5))
        for link in host.links:
            link.delay(seconds)
        self.healing.append(host.heal)

    def reset(self):
        for link in self.host().links:
            link.reset()

    def kill(self):
        host = self.host()
        # Another fault may have ended it already
        if host.process:
            host.kill()
            self.healing.append(host.start)

    def restart(self):
        host = self.host()
        if host.process:
            host.kill()
            host.start()

    def terminate(self):
        host = self.host()
        if host.process:
            host.thaw()
            host.terminate()
            host.start()

    def freeze(self):
        host = self.host()
        if host.process:
            process = host.process
            host.freeze()
            self.healing.append(
                lambda: process.send_signal(signal.SIGCONT))

    def kill_members(self, members):
        members = [member for member in members if member.process]
        for member in members:
            member.kill()
        self.healing.append(lambda: [member.start() for member in members])

    def kill_leader(self):
        self.kill_members([member for member in self.world.etcd.members
                           if member.process and member.is_leader()])

    def freeze_members(self, members):
        processes = [member.process for member in members if member.process]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        self.healing.append(lambda: [process.send_signal(signal.SIGCONT)
                                     for process in processes])

    def freeze_leader(self):
        self.freeze_members([member for member in self.world.etcd.members
                             if member.process and member.is_leader()])

    def partition(self, group):
        self.world.etcd.partition(group)
        self.healing.append(self.world.etcd.heal)

    def compact(self):
        try:
            revision = self.world.etcd.wait(0)["header"]["revision"]
            self.world.etcd.call("kv/compaction", {"revision": revision})
        except OSError:
            pass    # another fault keeps it from that

    def some_members(self, count):
        return self.random.sample(self.world.etcd.members, count)

    FAULTS = {
        "cut": cut,
        "cut up": lambda self: self.cut("up"),
        "cut down": lambda self: self.cut("down"),
        "delay": delay,
        "reset": reset,
        "kill a daemon": kill,
        "restart a daemon": restart,
        "terminate a daemon": terminate,
        "freeze a daemon": freeze,
        "kill a member": lambda self: self.kill_members(self.some_members(1)),
        "kill the leader": kill_leader,
        "kill the quorum": lambda self: self.kill_members(
            self.some_members(2)),
        "freeze a member": lambda self: self.freeze_members(
            self.some_members(1)),
        "freeze the leader": freeze_leader,
        "cut off a member": lambda self: self.partition(
            self.some_members(1)),
        "cut off the leader": lambda self: self.partition(
            [member for member in self.world.etcd.members
             if member.process and member.is_leader()]),
        "compact": compact,
        "freeze the quorum": lambda self: self.freeze_members(
            self.some_members(2)),
    }
