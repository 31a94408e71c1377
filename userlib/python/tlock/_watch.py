# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits for a lock, and what happens to it."""
import ctypes
import os
import select
from fcntl import ioctl
from typing import List, NamedTuple, Optional

from ._device import (ASYNC, DEFAULT_PATH, MONITOR, REMOTE, REVOKING, STATUS,
                      WAITER, Contender, EventStruct, PathLike, WaiterStruct,
                      device_path, keep, make_text)
from ._explain import explain

# In the order of enum tlock_event_kind
_KINDS = ("unknown", "waiting", "acquired", "released", "yielded", "timed-out",
          "interrupted", "withdrawn", "abandoned", "deleted", "revoked")


class Waiter(NamedTuple):
    """One who waits for a lock. Text is printable, as in Holder."""

    ticket: int
    """its place in the queue: a later request has a larger one"""
    since_ns: int
    """when it asked, in nanoseconds of time.monotonic_ns(); may be negative,
    see Holder"""
    timeout_ns: int
    """its timeout, in nanoseconds since then; -1: it waits for ever"""
    pid: int
    """the process; 0 if it has ended or is not visible in this container"""
    uid: int
    """its effective user"""
    comm: str
    """its command name"""
    job: str
    """what it waits for; empty if it gave no job"""
    asynchronous: bool
    """whether it waits in an event loop, rather than in a thread"""


class Event(NamedTuple):
    """What has happened to a lock. Text is printable, as in Holder."""

    kind: str
    """waiting: a request began to wait, or goes on after an interruption;
    acquired: somebody got the lock;
    released: the holder released it;
    yielded: the holder let a waiter in, by release_and_acquire();
    timed-out: a request ran out of time. If it has a token, the lock had been
    granted to it, but its event loop had been too busy to notice;
    interrupted: a signal, a stop or the like interrupted the wait;
    withdrawn: a request was withdrawn;
    abandoned: the holder exited or was killed without a release;
    revoked: the lock was taken from the holder, whose lease had ended, or by
    revoke(), or by the lock's gate;
    deleted: the lock was deleted, and there are no more events;
    unknown: something that this version does not know"""
    seq: int
    """the event's number: larger by 1 than that of the one before, unless
    events were lost"""
    time_ns: int
    """when it happened, in nanoseconds of time.monotonic_ns(); may be negative,
    see Holder"""
    token: int
    """the grant's number; 0 if the event is about none"""
    ticket: int
    """the request's place in the queue; 0 if it never waited"""
    pid: int
    """the process that asked for the lock, even if it has ended; 0 if it is not
    visible in this container, or the event is about none"""
    uid: int
    """its effective user"""
    comm: str
    """its command name"""
    job: str
    """its job"""
    lost: int
    """how many events just before this one were lost, because they were not
    read in time"""
    revoking: bool
    """whether revoke() has been called for the grant; if neither this nor
    by_gate is true, a grant is revoked because its lease had ended"""
    by_gate: bool
    """whether the gate of a lock that several hosts share has revoked the
    grant, as this host lost touch with the others"""


def _make_waiter(raw: WaiterStruct) -> Waiter:
    return Waiter(raw.ticket, raw.since_ns, max(raw.timeout_ns, -1), raw.pid,
                  raw.uid, make_text(raw.comm), make_text(raw.job),
                  raw.flags & ASYNC != 0)


def _make_event(raw: EventStruct) -> Event:
    kind = _KINDS[raw.kind] if raw.kind < len(_KINDS) else "unknown"
    return Event(kind, raw.seq, raw.time_ns, raw.token, raw.ticket, raw.pid,
                 raw.uid, make_text(raw.comm), make_text(raw.job), raw.lost,
                 raw.flags & REVOKING != 0,
                 kind == "revoked" and raw.flags & REMOTE != 0)


def waiters(path: PathLike = DEFAULT_PATH) -> List[Waiter]:
    """Returns those who wait for a lock, the longest waiter first.

    Does not disturb the lock's contenders. A waiter that comes or leaves
    meanwhile may be listed or not. A thread that is stopped, or in a signal
    handler, does not wait, and is not listed.

    path is a device's path or a lock's name, by default the first lock, whatever
    TLOCK in the environment says. Read permission is enough.
    """
    contender = Contender(device_path(path), os.O_RDONLY)
    raw = WaiterStruct()
    found: List[Waiter] = []
    while True:
        try:
            ioctl(contender.fd, WAITER, raw)
        except FileNotFoundError:
            return found
        except OSError as error:
            raise contender.error(error.errno or 0) from None
        found.append(_make_waiter(raw))


class EventFile(Contender):
    """An open file that records the events of a lock"""

    __slots__ = ()

    def __init__(self, path: str) -> None:
        super().__init__(path, os.O_RDONLY)
        try:
            ioctl(self.fd, MONITOR)
        except OSError as error:
            raise explain(self.error(error.errno or 0), path, STATUS) from None
        os.set_blocking(self.fd, False)


class _WaitingFile(EventFile):
    """The same, with a pipe that ends a wait for the next event"""

    __slots__ = ("pipe",)

    def __init__(self, path: str) -> None:
        self.pipe: List[int] = []
        super().__init__(path)
        self.pipe += os.pipe()

    def close(self) -> None:
        super().close()
        while self.pipe:
            os.close(self.pipe.pop())


def read_events(fd: int, number: int) -> Optional[List[Event]]:
    """Returns the next events of an EventFile, this number at most.

    Does not wait. Returns None if the lock was deleted and all were read.
    """
    try:
        data = os.read(fd, number * ctypes.sizeof(EventStruct))
    except BlockingIOError:
        return []
    return [_make_event(EventStruct.from_buffer_copy(data, start))
            for start in range(0, len(data), ctypes.sizeof(EventStruct))] \
        or None


def _wait(fd: int, end: int) -> bool:
    """Waits until a descriptor can be read. Returns False if it is the second.

    A signal handler that raises no exception does not end the wait.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(end, select.POLLIN)
    return all(ready == fd for ready, _ in poll.poll())


class Monitor:
    """What happens to a lock from now on: an iterator of its events.

        with tlock.Monitor() as events:
            for event in events:
                print(event.kind, event.job)

    Each step waits for the next event. The iteration ends after the event that
    says that the lock was deleted.

    Contenders never wait for a reader: a reader that is too slow loses the
    oldest events, and the next event says how many. To know the whole queue,
    make the object first, and then call waiters(): in this order nobody is
    missed.

    Signal handlers run during a wait. If one raises an exception, such as
    KeyboardInterrupt, that ends the wait, and the next call goes on without a
    loss. Threads may share an object: each event goes to one of them. Any
    thread, and any signal handler, may call close(). In a forked child, the
    object is closed.

    path is a device's path or a lock's name, by default the first lock, whatever
    TLOCK in the environment says. Read permission is enough.

    Raises OSError if the lock's device cannot be opened.
    """

    path: str
    """Path of the lock's device"""

    # _files: the open file, unless the object is closed. Nothing guards this:
    #     each step is one atomic operation.
    _files: List[_WaitingFile]

    def __init__(self, path: PathLike = DEFAULT_PATH) -> None:
        self.path = device_path(path)
        self._files = [keep(_WaitingFile, self.path)]

    def __iter__(self) -> "Monitor":
        return self

    def __next__(self) -> Event:
        # It stays open during this call, even if another thread calls close()
        file = self._file()
        try:
            while file is not None:
                # The traceback of an exception would keep open what a function
                # has as an argument, so these have descriptors
                events = read_events(file.fd, 1)
                if events:
                    return events[0]
                if events is None or not _wait(file.fd, file.pipe[0]):
                    break
            raise StopIteration
        finally:
            del file

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, for select and the like: readable if there is an
        event, or the iteration is at its end. It still belongs to the object.

        Raises ValueError if the object is closed.
        """
        file = self._file()
        if file is None:
            raise ValueError("the monitor is closed")
        return file.fd

    def close(self) -> None:
        """Ends the iteration, also in threads that wait for an event."""
        file = self._file()
        if file is not None:
            # In this order, a call that an exception interrupts can be repeated
            os.write(file.pipe[1], b"\0")
            self._files.clear()

    def _file(self) -> Optional[_WaitingFile]:
        """The open file, if there is one; a forked child has closed it"""
        for file in self._files:
            return file if file.fd >= 0 else None
        return None
