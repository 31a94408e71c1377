# SPDX-License-Identifier: GPL-2.0-only
"""The gate of one lock on one host, as uapi/linux/tlock.h describes it.

It follows module/gate.c, and serves gate-fake.c. All times are on
CLOCK_BOOTTIME, in nanoseconds.
"""
import collections
import ctypes
import errno
import os
import socket
import struct
import threading
import time

from tlock._device import GateStruct

LOOK, ATTACH, SET = range(3)
RECALL = 0x1
OPEN, HELD, WANTED, SPENT, OVER = 0x1, 0x2, 0x4, 0x8, 0x10
ABANDONED, REVOKED = 0x1, 0x2
REMOTE = 0x8

SECOND = 10**9


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _since(boottime):
    """The same time on CLOCK_MONOTONIC"""
    return boottime - now() + time.monotonic_ns()


class Opening:
    """An opening of a gate; end and how as in Grant"""

    def __init__(self, gate, begin, said):
        self.lock = gate.name
        self.host = gate.host
        self.number = said.opening
        self.first_token = said.first_token
        self.result = said.result
        self.begin = begin
        self.end = None


class Grant:
    """A grant, with what the holder can do.

    end: when it ended; None: it has not
    how: "released", "abandoned" or "revoked"
    """

    def __init__(self, request, token, result, begin):
        self.gate = request.gate
        self.lock = request.gate.name
        self.host = request.gate.host
        self.comm = request.comm
        self.job = request.job
        self.token = token
        self.result = result
        self.begin = begin
        self.end = None
        self.how = None

    def __repr__(self):
        return "%s on %s: %r, token %d, result %d, %.3f to %s, %s" % (
            self.lock, self.host, self.job, self.token, self.result,
            self.begin / SECOND,
            "now" if self.end is None else "%.3f" % (self.end / SECOND),
            self.how or "held")

    def release(self):
        """Returns whether the lock was still held."""
        return self.gate.end(self, "released")

    def abandon(self):
        return self.gate.end(self, "abandoned")

    def revoke(self):
        """As TLOCK_IOC_REVOKE does"""
        return self.gate.end(self, "revoked")

    def wait_end(self, timeout):
        """Waits until the grant has ended; returns how, or None."""
        with self.gate.changed:
            self.gate.changed.wait_for(lambda: self.how, timeout)
            return self.how


class Request:
    """A contender that waits"""

    def __init__(self, gate, job, comm):
        self.gate = gate
        self.job = job
        self.comm = comm
        self.grant = None

    def wait(self, timeout):
        """Returns the grant, or None if there is none in time."""
        with self.gate.changed:
            self.gate.changed.wait_for(lambda: self.grant, timeout)
            return self.grant

    def withdraw(self):
        """Stops waiting; returns the grant if there is one already."""
        return self.gate.withdraw(self)


class Ledger:
    """All grants and openings, in the order in which they were made"""

    def __init__(self):
        self.grants = []
        self.openings = []
        self.errors = []


class Gate:
    """A gated lock of a host. The methods without "_" lock it."""

    def __init__(self, directory, name, host, ledger):
        self.path = os.path.join(directory, name + ".sock")
        self.name = name
        self.host = host
        self.ledger = ledger
        self.changed = threading.Condition()
        self.holder = self      # this gate, a Grant, or None: free
        self.queue = collections.deque()
        self.daemon = None
        self.opening = 0
        self.current = None     # the Opening
        self.until_ns = 0
        self.token = 0
        self.last_token = 0
        self.result = 0
        self.closing = self.recalled = self.tried = self.news = False
        self.remote = GateStruct()
        self.deleted = False
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen()
        self.connections = []
        for target in self._accept, self._timer:
            threading.Thread(target=target, daemon=True).start()

    # What contenders do

    def ask(self, job="", comm="agent"):
        """Begins to wait for the lock; returns a Request."""
        request = Request(self, job, comm)
        with self.changed:
            self._catch_up(now())
            if self.holder is None:
                self._grant(request, now())
                return request
            self.queue.append(request)
            if len(self.queue) == 1 and self.holder is self:
                self._news()
        return request

    def acquire(self, timeout, job="", comm="agent"):
        """Returns a Grant, or None after the timeout in seconds."""
        request = self.ask(job, comm)
        return request.wait(timeout) or request.withdraw()

    def attempt(self, job="", comm="agent"):
        """Tries once: returns a Grant or None."""
        with self.changed:
            self._catch_up(now())
            if self.holder is None:
                request = Request(self, job, comm)
                self._grant(request, now())
                return request.grant
            if self.holder is self:
                self.tried = True
                self._news()
        return None

    def withdraw(self, request):
        with self.changed:
            self._catch_up(now())
            if request in self.queue:
                self.queue.remove(request)
                if not self.queue and self.holder is self:
                    self._news()
            return request.grant

    def end(self, grant, how):
        with self.changed:
            self._catch_up(now())
            if self.holder is not grant:
                return False
            self.result |= {"abandoned": ABANDONED, "revoked": REVOKED}.get(
                how, 0)
            self._end_grant(how, now())
            return True

    def delete(self):
        """Deletes the lock, which nobody may hold or wait for."""
        with self.changed:
            assert not self.queue and not isinstance(self.holder, Grant)
            self._over(now())
            self.close()

    def close(self):
        with self.changed:
            if self.deleted:
                return
            self.deleted = True
            os.unlink(self.path)
            for connection in [self.listener] + self.connections:
                # Wakes the thread that waits for it
                connection.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    # What tests look at

    def look(self):
        """The struct tlock_gate that LOOK fills in"""
        with self.changed:
            self._catch_up(now())
            return self._describe(None)

    # The rest needs self.changed to be locked, but for the threads

    def _is_over(self, time_ns):
        return time_ns >= self.until_ns

    def _is_open(self, time_ns):
        return (self.token < self.last_token and
                (bool(self.queue) or not self.recalled) and
                not self._is_over(time_ns))

    def _news(self):
        if not self.news and self.daemon:
            try:
                self.daemon.send(b"!", socket.MSG_DONTWAIT)
            except OSError:
                pass    # it has just ended
        self.news = True

    def _grant(self, request, time_ns):
        self.token += 1
        grant = Grant(request, self.token, self.result, time_ns)
        self.result = 0
        self.holder = request.grant = grant
        self.ledger.grants.append(grant)
        self.changed.notify_all()

    def _grant_next(self, time_ns):
        if self.queue:
            self._grant(self.queue.popleft(), time_ns)

    def _end_grant(self, how, time_ns):
        self.holder.end = time_ns
        self.holder.how = how
        self.holder = None
        is_open = self._is_open(time_ns)
        if not is_open or self.recalled:
            self._news()
        if is_open:
            self._grant_next(time_ns)
        else:
            self._take(time_ns)
        self.changed.notify_all()

    def _over(self, time_ns):
        self.until_ns = 0
        if self.current and self.current.end is None:
            self.current.end = time_ns

    def _take(self, time_ns):
        self.holder = self
        if self.closing:
            self._over(time_ns)
        if not self.until_ns:
            self.last_token = 0
            self.closing = self.recalled = False

    def _catch_up(self, time_ns):
        # A late timer of this process is none of the kernel's
        if self.until_ns and self._is_over(time_ns):
            end = self.until_ns
            self._over(end)
            self._news()
            if isinstance(self.holder, Grant):
                self.result |= REVOKED
                self._end_grant("revoked", end)
            else:
                self._take(end)
        if self.holder is None and not self._is_open(time_ns):
            self._take(time_ns)

    def _timer(self):
        with self.changed:
            while not self.deleted:
                self._catch_up(now())
                left = self.until_ns - now() if self.until_ns else SECOND
                self.changed.wait(max(left, 0) / SECOND)

    def _describe(self, connection):
        described = GateStruct()
        shut = self.holder is self
        if self.recalled and not self.closing:
            described.flags = RECALL
        described.state = (
            (OPEN if self._is_open(now()) and not shut else 0) |
            (HELD if isinstance(self.holder, Grant) else 0) |
            (WANTED if self.queue or self.tried else 0) |
            (SPENT if self.token >= self.last_token else 0) |
            (0 if self.until_ns else OVER))
        described.waiters = len(self.queue)
        described.opening = self.opening
        described.until_ns = self.until_ns
        described.last_token = self.last_token
        described.token = self.token
        described.result = self.result
        holder = described.holder
        if shut:
            described.holder = self.remote.holder
            holder.flags = REMOTE
            described.host = self.remote.host
        elif self.holder:
            holder.token = self.holder.token
            holder.since_ns = _since(self.holder.begin)
            holder.pid = os.getpid()
            holder.comm = self.holder.comm.encode()
            holder.job = self.holder.job.encode()
        if connection and connection is self.daemon:
            self.news = self.tried = False
        return described

    def _check(self, connection, said, shut):
        if connection is not self.daemon:
            return errno.EPERM
        if not shut and not 0 < said.first_token <= said.last_token:
            return errno.EINVAL
        if said.opening == self.opening:
            return 0 if self.until_ns or shut else errno.ESTALE
        if said.opening != self.opening + 1:
            return errno.ESTALE
        return errno.EBUSY if self.until_ns else 0

    def _set(self, connection, said):
        time_ns = now()
        self._catch_up(time_ns)
        shut = said.until_ns <= time_ns
        error = self._check(connection, said, shut)
        if error:
            return error
        if said.opening != self.opening and not shut:
            self.result = said.result
            self.current = Opening(self, time_ns, said)
            self.ledger.openings.append(self.current)
        self.opening = said.opening
        self.remote = said
        if not said.holder.token:
            said.holder = type(said.holder)()
        if not shut:
            self.until_ns = said.until_ns
            self.recalled = bool(said.flags & RECALL)
            self.token = max(self.token, said.first_token - 1)
        elif self.until_ns:
            self.until_ns = min(self.until_ns, time_ns + said.grace_ns)
            self.recalled = True
        self.last_token = 0 if shut else said.last_token
        self.closing = shut and self.until_ns != 0
        if self.holder is self:
            self._take(time_ns)
        self._catch_up(time_ns)
        if self.holder is self and self._is_open(time_ns):
            self.holder = None
            self._grant_next(time_ns)
        self.changed.notify_all()
        return 0

    def _attach(self, connection):
        if self.daemon:
            return errno.EBUSY
        self.daemon = connection
        return 0

    def _call(self, connection, data):
        said = GateStruct.from_buffer_copy(data)
        with self.changed:
            if said.op == SET:
                error = 0 if _valid(said) else errno.EINVAL
                error = error or self._set(connection, said)
            elif said.op == ATTACH:
                error = self._attach(connection)
            else:
                error = 0
            if error in (errno.EINVAL, errno.EPERM):
                self.ledger.errors.append("%s on %s: %s" % (
                    self.name, self.host, errno.errorcode[error]))
            self._catch_up(now())
            described = self._describe(connection)
            described.op = said.op
            connection.send(struct.pack("=Q", error) + bytes(described))

    def _serve(self, connection):
        try:
            while True:
                data = connection.recv(ctypes.sizeof(GateStruct) + 1)
                if not data:
                    break
                self._call(connection, data)
        except OSError:
            pass    # the daemon was killed
        with self.changed:
            if self.daemon is connection:
                self.daemon = None
                self.last_token = 0
                self._catch_up(now())
            self.connections.remove(connection)
            connection.close()

    def _accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                break
            with self.changed:
                if self.deleted:
                    break
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,),
                             daemon=True).start()
        self.listener.close()


def _valid(said):
    """Whether the kernel accepts the fields, as module/chardev.c does"""
    holder = said.holder
    shown = bytes(said.host) + bytes(holder.job)
    return not (said.flags & ~RECALL or
                said.result & ~(ABANDONED | REVOKED) or said.reserved0 or
                any(said.reserved) or holder.pid or holder.uid or
                holder.flags or holder.reserved or holder.expires_ns or
                any(byte < 0x20 or byte == 0x7f for byte in shown))
