# SPDX-License-Identifier: GPL-2.0-only
"""An instrument that takes commands from several hosts, and judges them.

Each command is a datagram with the token of the sender's grant. The instrument has
one clock, that of its own process, so it sees every overlap there is.
"""
import dataclasses
import json
import socket
import threading
import time
from typing import Dict, List, Set

import network

PORT = 7000


@dataclasses.dataclass
class Verdict:
    """What the instrument saw."""
    commands: int = 0
    #: commands with an older token than that of an earlier command, or with
    #: another host's. The instrument refuses them, but none may come.
    late: int = 0
    #: grants that had commands
    grants: int = 0
    #: tokens of those that overlapped a newer one
    overlaps: Set[int] = dataclasses.field(default_factory=set)
    #: how many grants of each host
    hosts: Dict[str, int] = dataclasses.field(default_factory=dict)
    #: for each late command: by which host, its token, the newest token, and how
    #: long that had been known, in seconds
    details: List[str] = dataclasses.field(default_factory=list)


class Instrument:
    """The instrument, in a network namespace."""

    def __init__(self, namespace: network.Namespace) -> None:
        #: of the commands since somebody set it
        self.verdict = Verdict()
        #: for each host: when its last accepted command came, on the monotonic
        #: clock
        self.last: Dict[str, float] = {}
        #: the tokens of accepted commands, in order
        self.accepted: List[int] = []
        self._token = 0
        self._host = ""
        self._since = 0.0
        self._socket = namespace.socket(socket.SOCK_DGRAM)
        self._socket.bind((namespace.address, PORT))
        threading.Thread(target=self._run, daemon=True).start()

    def accepted_late(self) -> int:
        """How many accepted commands are older than one that was accepted
        before."""
        return sum(new < old for old, new
                   in zip(self.accepted, self.accepted[1:]))

    def close(self) -> None:
        """Obey no more commands."""
        # This also ends a recvfrom() that waits
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(512)
                command = json.loads(data)
                obeyed = self._obey(command["host"], command["token"])
                # The agent waits for the answer, as with a real instrument
                answer = dict(command, obeyed=obeyed)
                self._socket.sendto(json.dumps(answer).encode(), sender)
            except OSError:
                if self._socket.fileno() < 0:
                    return

    def _obey(self, host: str, token: int) -> bool:
        now = time.monotonic()
        verdict = self.verdict
        verdict.commands += 1
        if token < self._token or (token == self._token and host != self._host):
            verdict.late += 1
            verdict.overlaps.add(token)
            verdict.details.append(
                f"{host}: token {token}, {now - self._since:.3f} s after "
                f"the first command of {self._host} with {self._token}")
            return False
        if token > self._token:
            verdict.grants += 1
            verdict.hosts[host] = verdict.hosts.get(host, 0) + 1
            self._token = token
            self._host = host
            self._since = now
        self.last[host] = now
        self.accepted.append(token)
        return True
