# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lock's device: linux/tlock.h in Python, and who may have it open."""
import ctypes
import errno
import functools
import os
import re
import stat
import sys
import threading
import weakref
from fcntl import ioctl
from typing import NamedTuple, Optional, Union

from ._explain import check_device, explain

DEFAULT_PATH = "/dev/tlock"

JOB_SIZE = 64
COMM_SIZE = 16
NAME_SIZE = 128
ABANDONED = 0x1

# What a lock is named by: see device_path()
PathLike = Union[str, "os.PathLike[str]"]

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
_CUT_OFF = "\u2026".encode()


class HolderStruct(ctypes.Structure):
    """struct tlock_holder"""

    _fields_ = [
        ("token", ctypes.c_uint64),
        ("since_ns", ctypes.c_int64),
        ("pid", ctypes.c_int32),
        ("uid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
        ("comm", ctypes.c_char * COMM_SIZE),
        ("job", ctypes.c_char * JOB_SIZE),
    ]


class AcquireStruct(ctypes.Structure):
    """struct tlock_acquire"""

    _fields_ = [
        ("timeout_ns", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("token", ctypes.c_uint64),
        ("ticket", ctypes.c_uint64),
        ("lease_ns", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 4),
        ("job", ctypes.c_char * JOB_SIZE),
        ("holder", HolderStruct),
        # What ioctl() copies, for small buffers, it does not copy back from
        # Python 3.14 on if the call fails: a blocker and a ticket would be lost
        ("padding", ctypes.c_char * (1024 if sys.version_info >= (3, 14)
                                     else 0)),
    ]


class StatusStruct(ctypes.Structure):
    """struct tlock_status"""

    _fields_ = [
        ("holder", HolderStruct),
        ("waiters", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("acquired", ctypes.c_uint64),
        ("contended", ctypes.c_uint64),
        ("timed_out", ctypes.c_uint64),
        ("interrupted", ctypes.c_uint64),
        ("abandoned", ctypes.c_uint64),
        ("yielded", ctypes.c_uint64),
        ("wait_ns_total", ctypes.c_uint64),
        ("wait_ns_max", ctypes.c_uint64),
        ("hold_ns_total", ctypes.c_uint64),
        ("hold_ns_max", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 6),
        ("name", ctypes.c_char * NAME_SIZE),
    ]


def _ioc(direction: int, number: int, size: int) -> int:
    """A command number, as asm-generic/ioctl.h makes them"""
    return direction << 30 | size << 16 | 0xBC << 8 | number


ACQUIRE = _ioc(3, 0x00, AcquireStruct.padding.offset)
RELEASE = _ioc(0, 0x01, 0)
REACQUIRE = _ioc(3, 0x02, AcquireStruct.padding.offset)
STATUS = _ioc(2, 0x03, ctypes.sizeof(StatusStruct))


class Holder(NamedTuple):
    """Who holds a lock, or held it when somebody gave up.

    Text is fit to print: control characters of a command name are shown as
    "?", bytes that are not UTF-8 as "\\xNN".
    """

    token: int
    """the grant's number: each grant of a lock has a larger one"""
    since_ns: int
    """when it was granted, in nanoseconds of time.monotonic_ns(); negative if
    that clock, in a container, had not started yet"""
    pid: int
    """the process; 0 if it has ended or is not visible in this container"""
    uid: int
    """its effective user"""
    comm: str
    """its command name"""
    job: str
    """what it said that it is doing; empty if it said nothing"""


class Status(NamedTuple):
    """A lock at one instant; the counters run from its creation."""

    holder: Optional[Holder]
    """None: the lock is free"""
    waiters: int
    """contenders that wait for it; a stopped process or one in a signal
    handler does not, until it goes on"""
    acquired: int
    """grants"""
    contended: int
    """acquires that found it held"""
    timed_out: int
    """acquires and reacquires that ran out of time"""
    interrupted: int
    """acquires and reacquires that a signal, a stop or the like disturbed"""
    abandoned: int
    """holders that went without a release"""
    yielded: int
    """reacquires that let somebody in"""
    wait_ns_total: int
    """nanoseconds spent waiting"""
    wait_ns_max: int
    """the longest wait"""
    hold_ns_total: int
    """nanoseconds the lock was held, by those who hold it no more"""
    hold_ns_max: int
    """the longest of these"""


def make_holder(raw: HolderStruct) -> Optional[Holder]:
    """What the kernel has said of a holder; None: the lock is free."""
    if not raw.token:
        return None
    comm = raw.comm.decode("utf-8", "backslashreplace")
    return Holder(raw.token, raw.since_ns, raw.pid, raw.uid,
                  _CONTROL.sub("?", comm),
                  raw.job.decode("utf-8", "backslashreplace"))


def describe(holder: Holder) -> str:
    """A holder, for a message"""
    return "job %r of pid %d (%s)" % (holder.job, holder.pid, holder.comm)


@functools.lru_cache(maxsize=64)
def _make_job(job: str) -> bytes:
    # A surrogate that stands alone, such as that of a byte, becomes "?"
    data = _CONTROL.sub("?", job).encode("utf-8", "replace")
    if len(data) < JOB_SIZE:
        return data
    # Up to the end of a character, with room for the mark
    data = data[:JOB_SIZE - 1 - len(_CUT_OFF)]
    return data.decode("utf-8", "ignore").encode() + _CUT_OFF


def make_job(job: object) -> bytes:
    """A job that the kernel takes, of anything: a label must stop nobody.

    None is an empty one, and what is no text is str(job). Control characters
    and bytes that are not UTF-8 become "?". If more than 63 bytes remain, it
    is cut at a character's boundary, and ends with an ellipsis.
    """
    if job is None:
        return b""
    if isinstance(job, (bytes, bytearray)):
        job = job.decode("utf-8", "surrogateescape")
    elif type(job) is not str:
        try:
            job = str(job)
        except Exception:  # pylint: disable=broad-except
            job = "<%s>" % type(job).__name__
    return _make_job(job)


def device_path(lock: PathLike) -> str:
    """The path of a lock's device.

    What has a "/" in it is a path. All else is the name of a lock, or of its
    device: "tlock", "tlock-NAME" or just NAME.

    Raises OSError, ENAMETOOLONG, if a name is too long for a lock, and
    ValueError if it is empty.
    """
    name = os.fsdecode(lock)
    if not name:
        raise ValueError("a lock's name is empty")
    if "/" in name:
        return name
    if name != "tlock" and not name.startswith("tlock-"):
        name = "tlock-" + name
    path = "/dev/" + name
    if len(os.fsencode(name)) >= NAME_SIZE:
        number = errno.ENAMETOOLONG
        raise explain(OSError(number, os.strerror(number), path), path, STATUS)
    return path


def _open(path: str, flags: int) -> int:
    """Opens a device; what turns out to be no lock is not disturbed."""
    # To open a FIFO may block, and would let its other end go on
    if not stat.S_ISCHR(os.stat(path).st_mode):
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), path)
    # A terminal can block here, and become ours
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


class Contender:
    """An open file of a lock's device, which can hold the lock once.

    Whoever drops the last reference closes the file; if it holds the lock
    then, the kernel passes it on as abandoned.
    """

    # fd: negative once it is closed
    # argument: for ACQUIRE and REACQUIRE, with this job in it
    __slots__ = "path", "fd", "argument", "job", "__weakref__"

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.fd = -1
        self.argument = AcquireStruct()
        self.job = b""
        try:
            self.fd = _open(path, flags)
            raw = StatusStruct()
            number = 0
            try:
                ioctl(self.fd, STATUS, raw)
            except OSError as error:
                number = error.errno or 0
            number = check_device(path, number, raw.name)
            if number:
                raise self.error(number)
            os.set_blocking(self.fd, True)
        except OSError as error:
            raise explain(error, path, STATUS) from None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def go_on(self, request: int) -> int:
        """Goes on with an interrupted call; returns 0 or an errno.

        Python has run the signal's handler. The argument has the request's
        ticket: the wait goes on in its place.
        """
        number = errno.EINTR
        while number == errno.EINTR:
            try:
                number = ioctl(self.fd, request, self.argument)
            except OSError as error:
                number = error.errno or 0
        return number

    def error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number), self.path)

    def look(self) -> StatusStruct:
        raw = StatusStruct()
        try:
            ioctl(self.fd, STATUS, raw)
        except OSError as error:
            raise self.error(error.errno or 0) from None
        return raw

    def release(self) -> bool:
        """Releases the lock, or withdraws a request for it.

        False: this neither holds it nor has a request (any more).
        """
        try:
            ioctl(self.fd, RELEASE)
            return True
        except PermissionError:
            return False
        except ValueError:
            # A forked child has closed it
            return False


def status(path: PathLike = DEFAULT_PATH) -> Status:
    """Looks at a lock, without disturbing those who use it.

    path is a device's path or a lock's name. Permission to read is enough.
    """
    raw = Contender(device_path(path), os.O_RDONLY).look()
    return Status(make_holder(raw.holder),
                  *(getattr(raw, name) for name in Status._fields[1:]))


# A forked child has all open files of its parent, and with them its place in
# the queue and its lock, which would then outlive the parent. It closes them
# at once. The guard keeps a fork from coming between an open and its entry
# here.
_open_contenders: "weakref.WeakSet[Contender]" = weakref.WeakSet()
_fork_guard = threading.RLock()


def open_contender(path: str) -> Contender:
    """A new contender that no child of this process keeps."""
    with _fork_guard:
        contender = Contender(path, os.O_RDWR)
        _open_contenders.add(contender)
    return contender


def _after_fork_in_child() -> None:
    for contender in list(_open_contenders):
        contender.close()
    _fork_guard.release()


os.register_at_fork(before=_fork_guard.acquire,
                    after_in_parent=_fork_guard.release,
                    after_in_child=_after_fork_in_child)
